"""All scores of packed rows from one pass of a causal reward model over each trunk.

A prompt that several responses share is computed once, the responses over its keys and values. Few
branch tokens go into the forward of their response. Many (full TLT, closed) go over the trunk's
keys and values in chunks, each of which attends only to what its branches see: the work is that of
the tokens, and the memory that of the trunk and one chunk. Scores and gradients equal those of
separate forwards to float error (design: one pass for all prefixes).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.rewards.cached_layer import OverLayer
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import (
    PackedRow,
    Tokens,
    branch_tokens,
    joined,
    trunk_tokens,
)

ONE_FORWARD = 64  # branch tokens of a response that go into its own forward
CHUNK = 192  # branch tokens of a response in a later forward, where memory allows
BRANCH_MEMORY_MIB = 256
_MIB = 2**20
Head = Callable[[Tensor], Tensor]  # hidden states (N, k, D) to scores (N, k)


def packed_scores(
    model: PreTrainedModel,
    rows: Sequence[PackedRow],
    pad_id: int,
    branch_memory_mib: int = BRANCH_MEMORY_MIB,
    head: Head | None = None,
) -> Tensor:
    """Scores (B, K) of B rows, float32 or wider; row b's are the first len(rows[b].branches).

    ``model`` is an AutoModelForSequenceClassification with one label and a causal backbone, or
    with a ``head`` of the caller's any model on such a backbone. ``branch_memory_mib`` bounds what
    branches take beside their trunks (MiB, estimated; one branch a response is the least), but not
    with gradient checkpointing or ZeRO-3, where all branches go into one forward. What is returned
    past a row's branches means nothing.

    Raises:
        ValueError: the backbone has layers of a kind that a mask does not decide.
    """
    if head is None:
        head = _one_label(model)
    device = next(model.parameters()).device
    singles, owners = _by_response(rows)
    # Layers that are computed again in the backward pass take no cache: all is one forward then.
    again = model.training and model.is_gradient_checkpointing
    few = again or _sharded(model) or _most_branch_tokens(singles) <= ONE_FORWARD
    every = [list(range(len(row.branches))) for row in singles]
    trunk = _Trunk.of(model, rows, singles, owners, pad_id, keep=not few, share=not again)
    own = every if few else [
        [n for n in numbers if not row.branches[n].token_ids]
        for row, numbers in zip(singles, every, strict=True)
    ]  # fmt: skip
    queries = trunk.queries
    if few:
        queries = joined(queries, branch_tokens(singles, every, pad_id).to(device))
    keys = queries if trunk.before is None else joined(trunk.before, queries)
    hidden = hidden_states(model, queries, keys, trunk.cache)
    width = trunk.queries.shape[1]
    groups, found = [own], [_read(head, hidden, trunk.places(singles, own, width))]
    if not few:
        for chosen in _chunks(singles, _chunk_tokens(model, singles, branch_memory_mib)):
            hidden = _chunk(model, singles, chosen, keys, trunk, pad_id)
            groups.append(chosen)
            found.append(_read(head, hidden, trunk.places(singles, chosen, 0)))
    return _in_order(rows, owners, groups, found)


@dataclass(frozen=True)
class _Trunk:
    """Prompts and responses of N single rows, before the forward of the responses.

    ``before`` (N, P) are prompt tokens that are computed already and stand in ``cache``; None where
    the ``queries`` hold the prompts too. ``first[i]`` is where response i begins in the queries.
    """

    queries: Tokens
    before: Tokens | None
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
        """Computes shared prompts once, if ``share``; ``keep``: chunks of branches will follow."""
        device = next(model.parameters()).device
        starts = [len(row.prompt_ids) for row in singles]
        # An open branch behind no token of a response reads the prompt's last token.
        bare = any(not b.attach and not b.token_ids for row in singles for b in row.branches)
        if not share or len(singles) == len(rows) or bare or not all(starts):
            texts = [row.prompt_ids + row.responses[0] for row in singles]
            queries = trunk_tokens(texts, [0] * len(texts), pad_id).to(device)
            return cls(queries, None, DynamicCache() if keep else None, starts)
        texts = [row.prompt_ids for row in rows]
        prompts = trunk_tokens(texts, [0] * len(texts), pad_id).to(device)
        cache = DynamicCache()
        hidden_states(model, prompts, prompts, cache)
        index = torch.tensor([row for row, _ in owners], device=device)
        over = DynamicCache()
        over.layers = [OverLayer(layer, index, None, keep) for layer in cache.layers]
        texts = [row.responses[0] for row in singles]
        queries = trunk_tokens(texts, starts, pad_id).to(device)
        return cls(queries, prompts.rows(index), over, [0] * len(texts))

    def places(
        self, rows: Sequence[PackedRow], chosen: Sequence[Sequence[int]], behind: int
    ) -> list[list[int]]:
        """Where the scores of some branches are read; branch tokens begin at ``behind``."""
        found = []
        for row, own, first in zip(rows, chosen, self.first, strict=True):
            places, end = [], behind
            for number in own:
                branch = row.branches[number]
                end += len(branch.token_ids)
                places.append(end - 1 if branch.token_ids else first + branch.attach - 1)
            found.append(places)
        return found


def _by_response(
    rows: Sequence[PackedRow],
) -> tuple[list[PackedRow], list[tuple[int, list[int]]]]:
    """A row for each response, and its owner: the number of its row and of its branches there."""
    singles, owners = [], []
    for number, row in enumerate(rows):
        for response, ids in enumerate(row.responses):
            own = [n for n, branch in enumerate(row.branches) if branch.response == response]
            branches = tuple(replace(row.branches[n], response=0) for n in own)
            singles.append(PackedRow(row.prompt_ids, (ids,), branches))
            owners.append((number, own))
    return singles, owners


def _chunk(
    model: PreTrainedModel,
    rows: Sequence[PackedRow],
    chosen: Sequence[Sequence[int]],
    known: Tokens,
    trunk: _Trunk,
    pad_id: int,
) -> Tensor:
    """Hidden states (N, T, D) of some branches of each response, over its trunk (``known``)."""
    assert trunk.cache is not None
    queries = branch_tokens(rows, chosen, pad_id).to(known.ids.device)
    prompt = 0 if trunk.before is None else trunk.before.shape[1]
    lists = []
    for row, own, first in zip(rows, chosen, trunk.first, strict=True):
        reach = max((row.branches[n].attach for n in own), default=0)
        start = prompt + first
        lists.append([*range(len(row.prompt_ids)), *range(start, start + reach)])
    width = max(map(len, lists))
    columns = torch.tensor([c + [-1] * (width - len(c)) for c in lists], device=known.ids.device)
    over = DynamicCache()
    over.layers = [
        OverLayer(layer, None, columns.clamp(min=0), False) for layer in trunk.cache.layers
    ]
    return hidden_states(model, queries, joined(known.at(columns), queries), over)


def hidden_states(
    model: PreTrainedModel, queries: Tokens, keys: Tokens, cache: DynamicCache | None = None
) -> Tensor:
    """Last hidden states (N, Tq, D) of the backbone, of the last tokens of ``keys``.

    A ``cache`` holds the keys before them, if any, and keeps theirs where it keeps anything.
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
        found: Tensor = model.score(hidden)
        return found.squeeze(-1)

    return score


def _read(head: Head, hidden: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The head at some places (N, k) of the hidden states; padded with the place 0."""
    width = max(map(len, places))
    index = torch.tensor([[*p, *[0] * (width - len(p))] for p in places], dtype=torch.int64)
    index = index.to(hidden.device)[..., None].expand(-1, -1, hidden.shape[-1])
    scores = head(hidden.gather(1, index))
    return scores if scores.dtype == torch.float64 else scores.float()


def _chunks(rows: Sequence[PackedRow], tokens: int) -> list[list[list[int]]]:
    """Branches with tokens, cut into chunks of at most ``tokens`` a row, or of one branch.

    By place, so that a chunk's branches see about the same of the trunk.
    """
    longest = max(len(branch.token_ids) for row in rows for branch in row.branches)
    size = max(tokens // longest, 1)
    ordered = [_by_place(row) for row in rows]
    starts = range(0, max(map(len, ordered)), size)
    return [[own[start : start + size] for own in ordered] for start in starts]


def _by_place(row: PackedRow) -> list[int]:
    found = [n for n, branch in enumerate(row.branches) if branch.token_ids]
    return sorted(found, key=lambda n: row.branches[n].attach)


def _chunk_tokens(model: PreTrainedModel, rows: Sequence[PackedRow], memory_mib: int) -> int:
    """Branch tokens of a row in one forward: CHUNK, or as many as the memory lets be.

    Counted is what a layer holds at its widest: keys and values (gathered, joined, spread over the
    heads that share them), logits and probabilities of eager attention, the mask, the two wide
    products of the feed-forward block.
    """
    config = model.config.get_text_config()
    heads, wide = config.num_attention_heads, config.intermediate_size
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    unit = model.dtype.itemsize
    keys = max(len(row.prompt_ids + row.responses[0]) for row in rows) + CHUNK
    fixed = keys * heads * size * 6 * unit
    each = keys * (heads * (2 * unit + 4) + 3 * unit) + (3 * wide + 8 * config.hidden_size) * unit
    room = memory_mib * _MIB / len(rows) - fixed
    return int(min(max(room / each, 1), CHUNK))


def _sharded(model: PreTrainedModel) -> bool:
    """Whether weights are sharded over workers (ZeRO-3).

    All workers then gather a layer's weights together at each of its calls: how many forwards there
    are must not depend on a worker's own rows.
    """
    return hasattr(next(model.parameters()), "ds_id")


def _most_branch_tokens(rows: Sequence[PackedRow]) -> int:
    return max(sum(len(branch.token_ids) for branch in row.branches) for row in rows)


def _in_order(
    rows: Sequence[PackedRow],
    owners: Sequence[tuple[int, list[int]]],
    groups: Sequence[Sequence[Sequence[int]]],
    found: Sequence[Tensor],
) -> Tensor:
    """Scores (B, K) by row and branch, of those found group by group for each response."""
    index = torch.zeros((len(rows), max(len(row.branches) for row in rows)), dtype=torch.int64)
    start = 0
    for group, scores in zip(groups, found, strict=True):
        for i, ((row, numbers), own) in enumerate(zip(owners, group, strict=True)):
            first = start + i * scores.shape[1]
            for place, branch in enumerate(own):
                index[row, numbers[branch]] = first + place
        start += scores.numel()
    return torch.cat([scores.flatten() for scores in found])[index.to(found[0].device)]
