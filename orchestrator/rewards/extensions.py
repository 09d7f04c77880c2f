"""Log-probabilities of many extensions of one prefix, which is computed once.

Token-level search asks for the log ratios of some dozen next tokens of a beam: one forward over
prompt and prefix, and one of the extensions over its keys and values (design: token-level search
needs no W*K forwards). Equal to separate forwards over the whole texts to float error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.rewards.cached_layer import OverLayer
from orchestrator.rewards.log_ratio import log_probs_at
from orchestrator.rewards.one_pass import hidden_states
from orchestrator.rewards.packed import joined, trunk_tokens

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Extended:
    """A prefix of a response and what may follow it; an empty extension is the prefix itself."""

    prompt_ids: Ids
    prefix_ids: Ids
    extensions: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are computed, the prefix once."""
        return len(self.prompt_ids + self.prefix_ids) + sum(map(len, self.extensions))


@torch.no_grad()
def extended_log_probs(
    model: PreTrainedModel, rows: Sequence[Extended], end_id: int, pad_id: int
) -> list[list[list[float]]]:
    """Log pi (nats) of the tokens of prefix and extension, and last of ``end_id`` behind them.

    One list for each extension of each row.

    Raises:
        ValueError: a prompt is empty, the backbone has layers of a kind that a mask does not
            decide, or the architecture changes its logits in a way that is not known.
    """
    if not all(row.prompt_ids for row in rows):
        raise ValueError("a prompt is empty: nothing predicts the response's first token")
    owners = [i for i, row in enumerate(rows) for _ in row.extensions]
    extensions = [extension for row in rows for extension in row.extensions]
    trunks, tails = _hidden(model, rows, owners, extensions, pad_id)
    width = trunks.shape[1]
    places: list[int] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        first, last = len(row.prompt_ids) - 1, len(row.prompt_ids + row.prefix_ids) - 1
        places += [i * width + place for place in range(first, last)]
        targets += row.prefix_ids
    behind = trunks.shape[0] * width
    for n, (owner, extension) in enumerate(zip(owners, extensions, strict=True)):
        row, start = rows[owner], behind + n * tails.shape[1]
        places.append(owner * width + len(row.prompt_ids + row.prefix_ids) - 1)
        places += range(start, start + len(extension))
        targets += [*extension, end_id]
    states = torch.cat([trunks.flatten(0, 1), tails.flatten(0, 1)])
    index = torch.tensor(places, dtype=torch.int64, device=states.device)
    wanted = torch.tensor(targets, dtype=torch.int64, device=states.device)
    values = iter(log_probs_at(model, states[index], wanted[:, None])[:, 0].double().tolist())
    prefixes = [[next(values) for _ in row.prefix_ids] for row in rows]
    own = [[next(values) for _ in range(len(extension) + 1)] for extension in extensions]
    found: list[list[list[float]]] = [[] for _ in rows]
    for owner, tail in zip(owners, own, strict=True):
        found[owner].append(prefixes[owner] + tail)
    return found


def _hidden(
    model: PreTrainedModel,
    rows: Sequence[Extended],
    owners: Sequence[int],
    extensions: Sequence[Ids],
    pad_id: int,
) -> tuple[Tensor, Tensor]:
    """Last hidden states of the N trunks (N, T, D) and of the M extensions (M, L, D)."""
    device = next(model.parameters()).device
    texts = [row.prompt_ids + row.prefix_ids for row in rows]
    known = trunk_tokens(texts, [0] * len(texts), pad_id).to(device)
    cache = DynamicCache()
    trunks = hidden_states(model, known, known, cache)
    if not any(extensions):
        return trunks, trunks.new_zeros((len(extensions), 0, trunks.shape[2]))
    index = torch.tensor(owners, dtype=torch.int64, device=device)
    over = DynamicCache()
    over.layers = [OverLayer(layer, index, None, False) for layer in cache.layers]
    starts = [len(texts[owner]) for owner in owners]
    queries = trunk_tokens(extensions, starts, pad_id).to(device)
    return trunks, hidden_states(model, queries, joined(known.rows(index), queries), over)
