"""Scores of packed rows, from one pass of a causal reward model over each trunk.

A prompt that several responses share is computed once; the responses continue from its keys and
values. A few branch tokens are computed in the forward of their response. Many (full TLT, closed)
are computed in chunks from the trunk's keys and values, each chunk attending only to the columns
that its branches see: memory is that of the trunk and one chunk. Scores and gradients equal those
of separate forwards up to float error (design: one pass for all prefixes).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.choices import BRANCH_MEMORY_MIB
from orchestrator.rewards.cached_layer import CachedLayer
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import (
    PackedRow,
    Tokens,
    branch_tokens,
    joined,
    trunk_tokens,
)

ONE_FORWARD = 64  # branch tokens of a response that are computed in its own forward
CHUNK = 192  # branch tokens of a response in a later forward, where memory allows
_MIB = 2**20
Head = Callable[[Tensor], Tensor]  # hidden states (N, k, D) to scores (N, k)


def packed_scores(
    model: PreTrainedModel,
    rows: Sequence[PackedRow],
    pad_id: int,
    branch_memory_mib: int = BRANCH_MEMORY_MIB,
    head: Head | None = None,
) -> Tensor:
    """Return scores (B, K) of B rows, float32 or wider; row b has len(rows[b].branches) of them.

    Values after a row's last branch are undefined.

    Args:
        model: an AutoModelForSequenceClassification with one label and a causal backbone; with
            ``head`` any model on such a backbone.
        rows: at least one, each with at least one branch.
        pad_id: token id of padding.
        branch_memory_mib: limit of the branches' memory besides their trunks (MiB, estimated, at
            least one branch a response). Not applied with gradient checkpointing or ZeRO-3, where
            all branches are in one forward.
        head: replaces the model's score head.

    Raises:
        ValueError: the backbone has layers whose attention a mask alone does not decide.
    """
    if head is None:
        head = _one_label(model)
    device = next(model.parameters()).device
    singles, owners = _by_response(rows)
    # Layers that are recomputed in the backward pass take no cache: one forward computes all.
    recomputed = model.training and model.is_gradient_checkpointing
    one_forward = recomputed or _sharded(model) or _max_branch_tokens(singles) <= ONE_FORWARD
    every = [list(range(len(row.branches))) for row in singles]
    trunk = _Trunk.of(
        model, rows, singles, owners, pad_id, keep=not one_forward, share=not recomputed
    )
    first = every if one_forward else [
        [n for n in numbers if not row.branches[n].token_ids]
        for row, numbers in zip(singles, every, strict=True)
    ]  # fmt: skip
    queries = trunk.queries
    if one_forward:
        queries = joined(queries, branch_tokens(singles, every, pad_id).to(device))
    keys = queries if trunk.prompts is None else joined(trunk.prompts, queries)
    hidden = hidden_states(model, queries, keys, trunk.cache)
    width = trunk.queries.shape[1]
    groups, scores = [first], [_scores_at(head, hidden, trunk.columns(singles, first, width))]
    if not one_forward:
        for chosen in _chunks(singles, _chunk_tokens(model, singles, branch_memory_mib)):
            hidden = _chunk(model, singles, chosen, keys, trunk, pad_id)
            groups.append(chosen)
            scores.append(_scores_at(head, hidden, trunk.columns(singles, chosen, 0)))
    return _in_order(rows, owners, groups, scores)


@dataclass(frozen=True)
class _Trunk:
    """Trunks of N single-response rows, before the forward of the responses.

    ``prompts`` (N, P) are prompt tokens whose states are in ``cache``; None if ``queries`` include
    the prompts. ``first[i]`` is the column of the queries where response i begins.
    """

    queries: Tokens
    prompts: Tokens | None
    cache: DynamicCache | None
    first: list[int]

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        rows: Sequence[PackedRow],
        singles: Sequence[PackedRow],
        owners: Sequence[tuple[int, list[int]]],
        pad_id: int,
        keep: bool,
        share: bool,
    ) -> "_Trunk":
        """Compute shared prompts once, if ``share``. ``keep`` stores states for branch chunks."""
        device = next(model.parameters()).device
        starts = [len(row.prompt_ids) for row in singles]
        # An open branch at the start of a response reads the prompt's last token.
        at_prompt = any(not b.attach and not b.token_ids for row in singles for b in row.branches)
        if not share or len(singles) == len(rows) or at_prompt or not all(starts):
            sequences = [row.prompt_ids + row.responses[0] for row in singles]
            queries = trunk_tokens(sequences, [0] * len(sequences), pad_id).to(device)
            return cls(queries, None, DynamicCache() if keep else None, starts)
        prompt_ids = [row.prompt_ids for row in rows]
        prompts = trunk_tokens(prompt_ids, [0] * len(prompt_ids), pad_id).to(device)
        cache = DynamicCache()
        hidden_states(model, prompts, prompts, cache)
        index = torch.tensor([row for row, _ in owners], device=device)
        response_cache = DynamicCache()
        response_cache.layers = [CachedLayer(layer, index, None, keep) for layer in cache.layers]
        responses = [row.responses[0] for row in singles]
        queries = trunk_tokens(responses, starts, pad_id).to(device)
        return cls(queries, prompts.rows(index), response_cache, [0] * len(responses))

    def columns(
        self, rows: Sequence[PackedRow], chosen: Sequence[Sequence[int]], branch_start: int
    ) -> list[list[int]]:
        """Return the column of each chosen branch's score; ``branch_start`` is that of branches."""
        columns_of_rows = []
        for row, numbers, first in zip(rows, chosen, self.first, strict=True):
            columns, end = [], branch_start
            for number in numbers:
                branch = row.branches[number]
                end += len(branch.token_ids)
                columns.append(end - 1 if branch.token_ids else first + branch.attach - 1)
            columns_of_rows.append(columns)
        return columns_of_rows


def _by_response(
    rows: Sequence[PackedRow],
) -> tuple[list[PackedRow], list[tuple[int, list[int]]]]:
    """Return a row per response, and its owner: the indices of its row and branches there."""
    singles, owners = [], []
    for number, row in enumerate(rows):
        for response, ids in enumerate(row.responses):
            indices = [n for n, branch in enumerate(row.branches) if branch.response == response]
            branches = tuple(replace(row.branches[n], response=0) for n in indices)
            singles.append(PackedRow(row.prompt_ids, (ids,), branches))
            owners.append((number, indices))
    return singles, owners


def _chunk(
    model: PreTrainedModel,
    rows: Sequence[PackedRow],
    chosen: Sequence[Sequence[int]],
    keys: Tokens,
    trunk: _Trunk,
    pad_id: int,
) -> Tensor:
    """Return hidden states (N, T, D) of some branches of each trunk (``keys``)."""
    assert trunk.cache is not None
    queries = branch_tokens(rows, chosen, pad_id).to(keys.ids.device)
    prompt = 0 if trunk.prompts is None else trunk.prompts.shape[1]
    lists = []
    for row, numbers, first in zip(rows, chosen, trunk.first, strict=True):
        reach = max((row.branches[n].attach for n in numbers), default=0)
        start = prompt + first
        lists.append([*range(len(row.prompt_ids)), *range(start, start + reach)])
    width = max(map(len, lists))
    columns = torch.tensor([c + [-1] * (width - len(c)) for c in lists], device=keys.ids.device)
    cache = DynamicCache()
    cache.layers = [
        CachedLayer(layer, None, columns.clamp(min=0), False) for layer in trunk.cache.layers
    ]
    return hidden_states(model, queries, joined(keys.at(columns), queries), cache)


def hidden_states(
    model: PreTrainedModel, queries: Tokens, keys: Tokens, cache: DynamicCache | None = None
) -> Tensor:
    """Return the backbone's last hidden states (N, Tq, D) of ``queries``, the last of ``keys``.

    ``cache`` holds the states of the earlier keys, if any, and stores the new ones.
    """
    hidden: Tensor = model.base_model(
        input_ids=queries.ids,
        attention_mask=additive_mask(model, queries, keys),
        position_ids=queries.position,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return hidden


def _one_label(model: PreTrainedModel) -> Head:
    def score(hidden: Tensor) -> Tensor:
        scores: Tensor = model.score(hidden)
        return scores.squeeze(-1)

    return score


def _scores_at(head: Head, hidden: Tensor, columns: Sequence[Sequence[int]]) -> Tensor:
    """Return the head's scores (N, k) at columns of the hidden states, padded with column 0."""
    width = max(map(len, columns))
    index = torch.tensor([[*c, *[0] * (width - len(c))] for c in columns], dtype=torch.int64)
    index = index.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
    scores = head(hidden.gather(1, index))
    return scores if scores.dtype == torch.float64 else scores.float()


def _chunks(rows: Sequence[PackedRow], tokens: int) -> list[list[list[int]]]:
    """Return chunks of the branches with tokens: at most ``tokens`` a row, or one branch.

    Sorted by where they attach, so that a chunk's branches see similar parts of the trunk.
    """
    longest = max(len(branch.token_ids) for row in rows for branch in row.branches)
    size = max(tokens // longest, 1)
    ordered = [_by_attachment(row) for row in rows]
    starts = range(0, max(map(len, ordered)), size)
    return [[numbers[start : start + size] for numbers in ordered] for start in starts]


def _by_attachment(row: PackedRow) -> list[int]:
    numbers = [n for n, branch in enumerate(row.branches) if branch.token_ids]
    return sorted(numbers, key=lambda n: row.branches[n].attach)


def _chunk_tokens(model: PreTrainedModel, rows: Sequence[PackedRow], memory_mib: int) -> int:
    """Return the branch tokens of a row in one forward: CHUNK, or what fits in the memory.

    Estimates a layer's peak: keys and values (gathered, concatenated, repeated for the heads that
    share them), logits and probabilities of eager attention, the mask, the two wide products of
    the feed-forward block.
    """
    config = model.config.get_text_config()
    heads, wide = config.num_attention_heads, config.intermediate_size
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    unit = model.dtype.itemsize
    keys = max(len(row.prompt_ids + row.responses[0]) for row in rows) + CHUNK
    fixed = keys * heads * size * 6 * unit
    per_token = (
        keys * (heads * (2 * unit + 4) + 3 * unit) + (3 * wide + 8 * config.hidden_size) * unit
    )
    room = memory_mib * _MIB / len(rows) - fixed
    return int(min(max(room / per_token, 1), CHUNK))


def _sharded(model: PreTrainedModel) -> bool:
    """Return whether weights are sharded over workers (ZeRO-3).

    All workers then gather a layer's weights together at each call, so the number of forwards must
    not depend on a worker's rows.
    """
    return hasattr(next(model.parameters()), "ds_id")


def _max_branch_tokens(rows: Sequence[PackedRow]) -> int:
    return max(sum(len(branch.token_ids) for branch in row.branches) for row in rows)


def _in_order(
    rows: Sequence[PackedRow],
    owners: Sequence[tuple[int, list[int]]],
    groups: Sequence[Sequence[Sequence[int]]],
    group_scores: Sequence[Tensor],
) -> Tensor:
    """Return scores (B, K) by row and branch from the scores of groups of branches."""
    index = torch.zeros((len(rows), max(len(row.branches) for row in rows)), dtype=torch.int64)
    start = 0
    for group, scores in zip(groups, group_scores, strict=True):
        for i, ((row, numbers), branches) in enumerate(zip(owners, group, strict=True)):
            first = start + i * scores.shape[1]
            for column, branch in enumerate(branches):
                index[row, numbers[branch]] = first + column
        start += scores.numel()
    flat = torch.cat([scores.flatten() for scores in group_scores])
    return flat[index.to(flat.device)]
