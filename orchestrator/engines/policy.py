"""The Hugging Face policy engine: batches of requests in, continuations out.

Each different prefix is computed once, its key/value cache then repeated for its samples. Every
sample draws from its own keyed stream of uniform numbers (inverse of the cumulative distribution,
one number a token), so that no draw depends on the batch. Knows nothing of search or of Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.engines.cache import growing_cache
from orchestrator.engines.chat import load_chat
from orchestrator.engines.checkpoints import load_policy
from orchestrator.randomness import uniforms
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.search.engines import (
    Continuation,
    Ids,
    Sampled,
    SampleRequest,
    TopRequest,
    TopTokens,
)  # fmt: skip

ROWS_PER_BATCH = 512  # past this, plain decoding on a CPU gains nothing and memory grows
COMPACT_BELOW = 0.7  # share of unfinished rows at which the finished ones are dropped


@dataclass
class _Row:
    """One sample on its way."""

    request: int
    prefix: int
    limit: int
    entropy_stop: float
    greedy: bool
    draws: np.ndarray
    tokens: list[int]
    entropies: list[float]
    stop: str | None = None


class PolicyIsNotFinite(ValueError):
    """A policy gave NaN logits: what is sampled from them would look like text and mean nothing."""


class HuggingFacePolicy:
    """A causal language model that samples.

    Args:
        checkpoint: folder or hub name.
        temperature: divides the logits; the same for every method.
        top_p: nucleus; 1 is the whole distribution.
        device: torch device name.
    """

    def __init__(
        self, checkpoint: str, temperature: float = 1.0, top_p: float = 1.0, device: str = "cpu"
    ) -> None:
        self.chat = load_chat(checkpoint)
        self.model: PreTrainedModel = load_policy(checkpoint).to(device).eval()
        self.temperature, self.top_p, self.device = temperature, top_p, device
        self._ends = torch.tensor(self.chat.end_ids, device=device)

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Samples all requests; result i belongs to request i."""
        rows: list[_Row] = []
        prefixes: dict[Ids, int] = {}
        first_request: dict[int, int] = {}
        for i, request in enumerate(requests):
            prefix = prefixes.setdefault(request.prompt_ids + request.prefix_ids, len(prefixes))
            first_request.setdefault(prefix, i)
            for key in request.keys:
                rows.append(_row(i, prefix, key, request))
        texts = list(prefixes)
        for batch in _batches(rows, texts):
            self._decode(batch, texts)
        owned: list[list[_Row]] = [[] for _ in requests]
        for row in rows:
            owned[row.request].append(row)
        prefill = {i: len(texts[prefix]) for prefix, i in first_request.items()}
        return [_sampled(owned[i], prefill.get(i, 0)) for i in range(len(requests))]

    @torch.no_grad()
    def top(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Next-token candidates of each request by falling logit; ties by the smaller id."""
        results: list[TopTokens] = []
        for start in range(0, len(requests), ROWS_PER_BATCH):
            chunk = requests[start : start + ROWS_PER_BATCH]
            texts = [request.prompt_ids + request.prefix_ids for request in chunk]
            logits, _, _ = self._prefill(texts)
            for text, request, row in zip(texts, chunk, logits.float().cpu(), strict=True):
                values, ids = torch.sort(row, descending=True, stable=True)
                kept = range(min(request.count, len(ids)))
                tokens = tuple(self._content(int(ids[k])) for k in kept)
                results.append(TopTokens(tokens, tuple(float(values[k]) for k in kept), len(text)))
        return results

    def log_probs(self, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses (x, y), at temperature 1."""
        return response_log_probs(self.model, texts, self.chat.tokenizer.eos_token_id)

    def _content(self, token: int) -> int | None:
        return None if token in self.chat.end_ids else token

    def _prefill(self, texts: Sequence[Ids]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Left-padded prefill: last logits (P, V), the cache, and the mask (P, T)."""
        width = max(map(len, texts))
        ids = torch.zeros((len(texts), width), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, text in enumerate(texts):
            ids[i, width - len(text) :] = torch.tensor(text)
            mask[i, width - len(text) :] = 1
        mask = mask.to(self.device)
        cache = growing_cache(self.model.config)
        out = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        _assert_numbers(out.logits)
        return out.logits[:, -1], cache, mask

    def _decode(self, rows: list[_Row], texts: list[Ids]) -> None:
        """Samples one batch of rows to their ends."""
        used = sorted({row.prefix for row in rows})
        place = {prefix: k for k, prefix in enumerate(used)}
        logits, cache, mask = self._prefill([texts[prefix] for prefix in used])
        index = torch.tensor([place[row.prefix] for row in rows], device=self.device)
        logits, mask = logits[index], mask[index]
        cache.batch_select_indices(index)
        live = rows
        while True:
            tokens = self._choose(live, logits)
            keep = [i for i, row in enumerate(live) if row.stop is None]
            if not keep:
                return
            if len(keep) < COMPACT_BELOW * len(live):
                index = torch.tensor(keep, device=self.device)
                live, tokens, mask = [live[i] for i in keep], tokens[index], mask[index]
                cache.batch_select_indices(index)
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

    def _choose(self, rows: list[_Row], logits: Tensor) -> Tensor:
        """The next token of each row (R,) from its logits (R, V); marks the rows that stop."""
        probabilities = self._distribution(logits.float())
        entropy = torch.special.entr(probabilities).sum(-1).tolist()
        draws = torch.tensor(
            [0.0 if row.stop else row.draws[len(row.tokens)] for row in rows],
            dtype=torch.float64, device=logits.device,
        )  # fmt: skip
        cumulative = probabilities.double().cumsum(-1)
        target = draws[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
        greedy = torch.tensor([row.greedy for row in rows], device=logits.device)
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
        for row, token, uncertainty in zip(rows, tokens.tolist(), entropy, strict=True):
            _append(row, token, uncertainty, self.chat.end_ids)
        return tokens

    def _distribution(self, logits: Tensor) -> Tensor:
        """Probabilities (R, V) after temperature and top-p."""
        probabilities = torch.softmax(logits / self.temperature, dim=-1)
        if self.top_p >= 1:
            return probabilities
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(-1) - ordered >= self.top_p
        kept = torch.zeros_like(probabilities).scatter(-1, ids, ordered.masked_fill(outside, 0))
        return kept / kept.sum(-1, keepdim=True)


def _assert_numbers(logits: Tensor) -> None:
    if torch.isnan(logits).any():
        raise PolicyIsNotFinite("the policy's logits are NaN: its weights or its dtype are broken")


def _row(index: int, prefix: int, key: int, request: SampleRequest) -> _Row:
    stop = float("inf") if request.entropy_stop is None else request.entropy_stop
    draws = np.zeros(0) if request.greedy else uniforms(key, request.max_new_tokens)
    if request.greedy:
        draws = np.zeros(request.max_new_tokens)
    return _Row(index, prefix, request.max_new_tokens, stop, request.greedy, draws, [], [])


def _append(row: _Row, token: int, entropy: float, ends: tuple[int, ...]) -> None:
    if row.stop is not None:
        return
    if row.tokens and entropy >= row.entropy_stop:
        row.stop = "entropy"
        return
    row.entropies.append(entropy)
    if token in ends:
        row.stop = "end"
        return
    row.tokens.append(token)
    if len(row.tokens) == row.limit:
        row.stop = "length"


def _batches(rows: list[_Row], texts: list[Ids]) -> list[list[_Row]]:
    """Rows in batches of like prefix length, in an order that only the requests decide."""
    ordered = sorted(rows, key=lambda row: (len(texts[row.prefix]), row.prefix))
    return [ordered[i : i + ROWS_PER_BATCH] for i in range(0, len(ordered), ROWS_PER_BATCH)]


def _sampled(rows: list[_Row], prefill: int) -> Sampled:
    done = tuple(Continuation(tuple(r.tokens), r.stop, tuple(r.entropies)) for r in rows)  # type: ignore[arg-type]
    sampled = sum(len(row.entropies) for row in rows)
    # Every token but the one at the limit goes through the model, to see what comes after it.
    computed = sum(len(row.tokens) - (row.stop == "length") for row in rows)
    return Sampled(done, sampled, prefill + computed)
