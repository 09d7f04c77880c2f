"""Log-probabilities of many extensions of one prefix, which is computed once.

Token-level search needs the log ratios of dozens of next tokens of a beam: one forward over prompt
and prefix, and one cached forward over the extensions (design: token-level search needs no W*K
forwards). Equal to separate forwards over the full sequences up to float error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.rewards.cached_layer import CachedLayer
from orchestrator.rewards.log_ratio import log_probs_at
from orchestrator.rewards.one_pass import hidden_states
from orchestrator.rewards.packed import joined, trunk_tokens

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Extended:
    """A prefix of a response and its extensions; an empty extension is the prefix itself."""

    prompt_ids: Ids
    prefix_ids: Ids
    extensions: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens computed, the prefix once."""
        return len(self.prompt_ids + self.prefix_ids) + sum(map(len, self.extensions))


@torch.no_grad()
def extended_log_probs(
    model: PreTrainedModel, rows: Sequence[Extended], end_id: int, pad_id: int
) -> list[list[list[float]]]:
    """Return log pi (nats) of the tokens of prefix and extension, then of ``end_id`` after them.

    One list per extension of each row.

    Raises:
        ValueError: a prompt is empty, the backbone has layers of a kind that a mask does not
            decide, or the architecture transforms its logits in an unsupported way.
    """
    if not all(row.prompt_ids for row in rows):
        raise ValueError("a prompt is empty: nothing predicts the response's first token")
    owners = [i for i, row in enumerate(rows) for _ in row.extensions]
    extensions = [extension for row in rows for extension in row.extensions]
    trunks, branches = _hidden(model, rows, owners, extensions, pad_id)
    width = trunks.shape[1]
    indices: list[int] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        first, last = len(row.prompt_ids) - 1, len(row.prompt_ids + row.prefix_ids) - 1
        indices += [i * width + column for column in range(first, last)]
        targets += row.prefix_ids
    branch_start = trunks.shape[0] * width
    for n, (owner, extension) in enumerate(zip(owners, extensions, strict=True)):
        row, start = rows[owner], branch_start + n * branches.shape[1]
        indices.append(owner * width + len(row.prompt_ids + row.prefix_ids) - 1)
        indices += range(start, start + len(extension))
        targets += [*extension, end_id]
    states = torch.cat([trunks.flatten(0, 1), branches.flatten(0, 1)])
    index = torch.tensor(indices, dtype=torch.int64, device=states.device)
    target_ids = torch.tensor(targets, dtype=torch.int64, device=states.device)
    values = iter(log_probs_at(model, states[index], target_ids[:, None])[:, 0].double().tolist())
    prefixes = [[next(values) for _ in row.prefix_ids] for row in rows]
    suffixes = [[next(values) for _ in range(len(extension) + 1)] for extension in extensions]
    results: list[list[list[float]]] = [[] for _ in rows]
    for owner, suffix in zip(owners, suffixes, strict=True):
        results[owner].append(prefixes[owner] + suffix)
    return results


def _hidden(
    model: PreTrainedModel,
    rows: Sequence[Extended],
    owners: Sequence[int],
    extensions: Sequence[Ids],
    pad_id: int,
) -> tuple[Tensor, Tensor]:
    """Return last hidden states of the N trunks (N, T, D) and of the M extensions (M, L, D)."""
    device = next(model.parameters()).device
    sequences = [row.prompt_ids + row.prefix_ids for row in rows]
    trunk = trunk_tokens(sequences, [0] * len(sequences), pad_id).to(device)
    cache = DynamicCache()
    trunks = hidden_states(model, trunk, trunk, cache)
    if not any(extensions):
        return trunks, trunks.new_zeros((len(extensions), 0, trunks.shape[2]))
    index = torch.tensor(owners, dtype=torch.int64, device=device)
    branch_cache = DynamicCache()
    branch_cache.layers = [CachedLayer(layer, index, None, False) for layer in cache.layers]
    starts = [len(sequences[owner]) for owner in owners]
    queries = trunk_tokens(extensions, starts, pad_id).to(device)
    return trunks, hidden_states(model, queries, joined(trunk.rows(index), queries), branch_cache)
