"""The Hugging Face policy engine: batches of requests in, continuations out.

Each different prefix is read on from where it was read before (``reading.py``), its keys and
values then repeated for its samples. Every sample draws from its own keyed stream of uniform
numbers (inverse of the cumulative distribution, one number a token), so that no draw depends on the
batch. Knows nothing of search or of Ray.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from orchestrator.engines.cache import GrowingLayer, growing_cache
from orchestrator.engines.chat import load_chat
from orchestrator.engines.checkpoints import DTYPES, Dtype, load_policy
from orchestrator.engines.draws import DrawnRow, append, inverse, new_row, sampled_of
from orchestrator.engines.key_values import MEMORY_MIB, Pair
from orchestrator.engines.reading import Reader
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    TopRequest,
    TopTokens,
)  # fmt: skip

ROWS_PER_BATCH = 512  # past this, plain decoding on a CPU gains nothing and memory grows
COMPACT_BELOW = 0.7  # share of unfinished rows at which the finished ones are dropped


class PolicyIsNotFinite(ValueError):
    """A policy gave NaN logits: what is sampled from them would look like text and mean nothing."""


class HuggingFacePolicy:
    """A causal language model that samples.

    Args:
        checkpoint: folder or hub name.
        temperature: divides the logits; the same for every method.
        top_p: nucleus; 1 is the whole distribution.
        device: torch device name.
        memory_mib: of keys and values that are kept.
        ends: whether the end token ends a response; if not it is a token like all others.
        dtype: of the weights; logits are read in float32 at least.
    """

    def __init__(
        self,
        checkpoint: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        device: str = "cpu",
        memory_mib: int = MEMORY_MIB,
        ends: bool = True,
        dtype: Dtype = "float32",
    ) -> None:
        self.chat = load_chat(checkpoint)
        self.model: PreTrainedModel = load_policy(checkpoint, DTYPES[dtype]).to(device).eval()
        self._reader = Reader(self.model, self._last_logits, 0, memory_mib)
        self._end_ids = self.chat.end_ids if ends else ()
        self.temperature, self.top_p, self.device = temperature, top_p, device

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._reader.forget()

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Samples all requests; result i belongs to request i."""
        rows: list[DrawnRow] = []
        prefixes: dict[Ids, int] = {}
        first_request: dict[int, int] = {}
        computed: dict[int, int] = {}
        for i, request in enumerate(requests):
            prefix = prefixes.setdefault(request.prompt_ids + request.prefix_ids, len(prefixes))
            first_request.setdefault(prefix, i)
            for key in request.keys:
                rows.append(new_row(i, prefix, key, request))
        texts = list(prefixes)
        for batch in _batches(rows, texts):
            computed.update(self._decode(batch, texts))
        owned: list[list[DrawnRow]] = [[] for _ in requests]
        for row in rows:
            owned[row.request].append(row)
        prefill = {i: computed[prefix] for prefix, i in first_request.items()}
        return [sampled_of(owned[i], prefill.get(i, 0)) for i in range(len(requests))]

    @torch.no_grad()
    def top(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Next-token candidates of each request by falling logit; ties by the smaller id."""
        results: list[TopTokens] = []
        for start in range(0, len(requests), ROWS_PER_BATCH):
            chunk = requests[start : start + ROWS_PER_BATCH]
            texts = list(dict.fromkeys(r.prompt_ids + r.prefix_ids for r in chunk))
            logits, computed = self._next_logits(texts)
            values, ids = (
                found.cpu() for found in torch.sort(_wide(logits), descending=True, stable=True)
            )
            place = {text: i for i, text in enumerate(texts)}
            for request in chunk:
                i = place[request.prompt_ids + request.prefix_ids]
                kept = ids[i, : request.count].tolist()
                results.append(
                    TopTokens(
                        tuple(map(self._content, kept)),
                        tuple(values[i, : request.count].tolist()),
                        computed[i],
                    )
                )
                computed[i] = 0  # paid for by the first who asks
        return results

    def log_probs(self, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses (x, y), at temperature 1."""
        return response_log_probs(self.model, texts, self.chat.tokenizer.eos_token_id)

    def _content(self, token: int) -> int | None:
        return None if token in self._end_ids else token

    def _last_logits(self, **inputs: object) -> Tensor:
        logits: Tensor = self.model(**inputs, logits_to_keep=1).logits
        return logits

    def _next_logits(self, texts: list[Ids]) -> tuple[Tensor, list[int]]:
        """Logits (P, V) of the token after each of P different texts, and the tokens computed."""
        found = self._reader.read(texts, [()] * len(texts), [True] * len(texts))
        logits = torch.stack([read.last for read in found if read.last is not None])
        _assert_numbers(logits)
        return logits, [read.computed for read in found]

    def _repeated(self, texts: list[Ids], index: Tensor) -> tuple[DynamicCache, Tensor]:
        """The cache of some texts, text ``index[r]`` in row r, and its mask (R, T)."""
        store = self._reader.store
        known = store.known(texts)
        width = max(known.lengths)
        lengths = torch.tensor(known.lengths, device=self.device)
        mask = (torch.arange(width, device=self.device) >= width - lengths[:, None]).long()[index]
        cache = growing_cache(self.model.config)
        for number, layer in enumerate(cache.layers):
            layer.update(*(part[index] for part in store.taken(known, known.lengths, number)))
        return cache, mask

    def _decode(self, rows: list[DrawnRow], texts: list[Ids]) -> dict[int, int]:
        """Samples one batch of rows to their ends; gives the tokens computed of each prefix."""
        used = sorted({row.prefix for row in rows})
        place = {prefix: k for k, prefix in enumerate(used)}
        logits, computed = self._next_logits([texts[prefix] for prefix in used])
        index = torch.tensor([place[row.prefix] for row in rows], device=self.device)
        tokens = self._choose(rows, logits, index)
        keep = [i for i, row in enumerate(rows) if row.stop is None]
        if keep:
            live = [rows[i] for i in keep]
            kept = torch.tensor(keep, device=self.device)
            self._go_on(live, [texts[prefix] for prefix in used], index[kept], tokens[kept])
        return dict(zip(used, computed, strict=True))

    def _go_on(self, live: list[DrawnRow], texts: list[Ids], index: Tensor, tokens: Tensor) -> None:
        """Samples rows from their second tokens on; row r goes on from text ``index[r]``."""
        cache, mask = self._repeated(texts, index)
        begun = mask.shape[1]
        while True:
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            tokens = self._choose(live, logits)
            keep = [i for i, row in enumerate(live) if row.stop is None]
            if not keep or len(keep) < COMPACT_BELOW * len(live):
                self._remember(live, texts, index, cache, begun)
            if not keep:
                return
            if len(keep) < COMPACT_BELOW * len(live):
                kept = torch.tensor(keep, device=self.device)
                live, tokens, mask, index = (
                    [live[i] for i in keep], tokens[kept], mask[kept], index[kept],
                )  # fmt: skip
                cache.batch_select_indices(kept)

    def _remember(
        self, rows: list[DrawnRow], texts: list[Ids], index: Tensor, cache: DynamicCache, begun: int
    ) -> None:
        """Keeps what was computed of the rows that stopped and may be gone on from."""
        chosen = [i for i, row in enumerate(rows) if row.stop in ("length", "entropy")]
        layers = cache.layers
        if not chosen or any(type(layer) is not GrowingLayer for layer in layers):
            return
        size = layers[0].keys.shape[2] - begun
        parents, pieces = [], []
        places = index.tolist()
        for i in chosen:
            parents.append(texts[places[i]])
            pieces.append([(tuple(rows[i].tokens[:size]), 0)])
        at = torch.tensor(chosen, device=self.device)
        whole = len(chosen) == len(rows)
        new: list[Pair] = []
        for layer in layers:
            pair = layer.keys[:, :, begun:], layer.values[:, :, begun:]
            new.append(pair if whole else (pair[0][at], pair[1][at]))
        self._reader.store.remember(parents, pieces, new)

    def _choose(self, rows: list[DrawnRow], logits: Tensor, index: Tensor | None = None) -> Tensor:
        """The next token of each row (R,) from logits (P, V), at ``index[r]``; marks what stops."""
        at = slice(None) if index is None else index
        probabilities = self._distribution(_wide(logits))
        entropy = torch.special.entr(probabilities).sum(-1)[at].tolist()
        draws = torch.tensor(
            [0.0 if row.stop else row.draws[len(row.tokens)] for row in rows],
            dtype=torch.float64, device=logits.device,
        )  # fmt: skip
        cumulative = probabilities.double().cumsum(-1)
        tokens = inverse(cumulative, draws, index).clamp(max=logits.shape[-1] - 1)
        if any(row.greedy for row in rows):
            greedy = torch.tensor([row.greedy for row in rows], device=logits.device)
            tokens = torch.where(greedy, logits.argmax(-1)[at], tokens)
        for row, token, uncertainty in zip(rows, tokens.tolist(), entropy, strict=True):
            append(row, token, uncertainty, self._end_ids)
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


def _wide(logits: Tensor) -> Tensor:
    """In float32, or float64 where they are so."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _assert_numbers(logits: Tensor) -> None:
    if torch.isnan(logits).any():
        raise PolicyIsNotFinite("the policy's logits are NaN: its weights or its dtype are broken")


def _batches(rows: list[DrawnRow], texts: list[Ids]) -> list[list[DrawnRow]]:
    """Rows in batches of like prefix length, in an order that only the requests decide."""
    ordered = sorted(rows, key=lambda row: (len(texts[row.prefix]), row.prefix))
    return [ordered[i : i + ROWS_PER_BATCH] for i in range(0, len(ordered), ROWS_PER_BATCH)]
