"""The Hugging Face policy engine: batches of requests in, continuations out.

Each different prefix is read on from where it was read before (``reading.py``), its keys and
values then shared by its samples. Every sample draws from its own keyed stream of uniform
numbers (inverse of the cumulative distribution, one number a token), so that no draw depends on the
batch. Knows nothing of search or of Ray.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.engines.cache import SamplesLayer, samples_cache
from orchestrator.engines.chat import load_chat
from orchestrator.engines.checkpoints import DTYPES, Dtype, load_policy
from orchestrator.engines.draws import (
    DrawnRow,
    append,
    batches,
    border_distance,
    distribution,
    draws_of,
    inverse,
    new_row,
    sampled_of,
)
from orchestrator.engines.key_values import MEMORY_MIB
from orchestrator.engines.known import Known
from orchestrator.engines.next_logits import NextLogits
from orchestrator.engines.reading import Reader
from orchestrator.engines.rows import Pair
from orchestrator.engines.stops import StopReader
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.rewards.masks import additive_mask
from orchestrator.rewards.packed import TRUNK, Tokens, joined
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
        memory_mib: float = MEMORY_MIB,
        ends: bool = True,
        dtype: Dtype = "float32",
    ) -> None:
        self.chat = load_chat(checkpoint)
        self.model: PreTrainedModel = load_policy(checkpoint, DTYPES[dtype]).to(device).eval()
        self._reader = Reader(self.model, self._last_logits, 0, memory_mib)
        self._behind = NextLogits()
        self._end_ids = self.chat.end_ids if ends else ()
        self._stop_readers: dict[tuple[str, ...], StopReader] = {}
        self.temperature, self.top_p, self.device = temperature, top_p, device

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._reader.forget()
        self._behind = NextLogits()

    @torch.inference_mode()
    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Samples all requests; result i belongs to request i."""
        rows: list[DrawnRow] = []
        prefixes: dict[Ids, int] = {}
        first_request: dict[int, int] = {}
        computed = Counter[int]()  # tokens of each prefix, of which several batches may have rows
        draws = draws_of(requests)
        for i, request in enumerate(requests):
            prefix = prefixes.setdefault(request.prompt_ids + request.prefix_ids, len(prefixes))
            first_request.setdefault(prefix, i)
            stops = self._stop_reader(request.stops)
            rows += [new_row(i, prefix, request, next(draws), stops) for _ in request.keys]
        texts = list(prefixes)
        for batch in batches(rows, texts, ROWS_PER_BATCH):
            computed.update(self._decode(batch, texts))
        owned: list[list[DrawnRow]] = [[] for _ in requests]
        for row in rows:
            owned[row.request].append(row)
        prefill = {i: computed[prefix] for prefix, i in first_request.items()}
        return [
            sampled_of(owned[i], prefill.get(i, 0), self.chat if request.texts else None)
            for i, request in enumerate(requests)
        ]

    @torch.inference_mode()
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
                found_values = values[i, : request.count + 1].tolist()
                last = found_values[request.count - 1 :]
                results.append(
                    TopTokens(
                        tuple(map(self._content, kept)),
                        tuple(found_values[: request.count]),
                        computed[i],
                        last[0] - last[1] if len(last) > 1 else math.inf,
                    )
                )
                computed[i] = 0  # paid for by the first who asks
        return results

    def log_probs(self, texts: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Log pi(y | x) in nats of whole responses (x, y), at temperature 1."""
        return response_log_probs(self.model, texts, self.chat.tokenizer.eos_token_id)

    def _stop_reader(self, stops: tuple[str, ...]) -> StopReader | None:
        if stops and stops not in self._stop_readers:
            self._stop_readers[stops] = StopReader(self.chat, stops)
        return self._stop_readers.get(stops)

    def _content(self, token: int) -> int | None:
        return None if token in self._end_ids else token

    def _last_logits(self, **inputs: object) -> Tensor:
        logits: Tensor = self.model(**inputs, logits_to_keep=1).logits
        return logits

    def _next_logits(self, texts: list[Ids]) -> tuple[Tensor, list[int]]:
        """Logits (P, V) of the token after each of P different texts, and the tokens computed."""
        known = [self._behind.of(text) for text in texts]
        found = self._reader.read(texts, [()] * len(texts), [one is None for one in known])
        both = [
            one if one is not None else read.last for one, read in zip(known, found, strict=True)
        ]
        logits = torch.stack([one for one in both if one is not None])
        _assert_numbers(logits)
        return logits, [read.computed for read in found]

    def _decode(self, rows: list[DrawnRow], texts: list[Ids]) -> dict[int, int]:
        """Samples one batch of rows to their ends; gives the tokens computed of each prefix."""
        used = sorted({row.prefix for row in rows})
        place = {prefix: k for k, prefix in enumerate(used)}
        logits, computed = self._next_logits([texts[prefix] for prefix in used])
        for prefix, own in zip(used, logits, strict=True):
            self._behind.keep(texts[prefix], own)
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
        known = self._reader.store.known(texts)
        layers = self._layers(known, index)
        cache = samples_cache(layers)
        lengths = torch.tensor(known.lengths, device=self.device)
        begun = known.tokens().to(self.device)
        for step in count():
            logits = self.model(
                input_ids=tokens[:, None],
                attention_mask=self._mask(begun, lengths, index, step),
                position_ids=(lengths[index] + step)[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            going = [row.stop is None for row in live]
            tokens = self._choose(live, logits)
            for i, row in enumerate(live):
                if going[i] and row.stop == "entropy":  # what comes next is known already
                    self._behind.keep(texts[index[i]] + tuple(row.tokens), logits[i])
            keep = [i for i, row in enumerate(live) if row.stop is None]
            few = len(keep) < COMPACT_BELOW * len(live)
            if not keep or few:
                self._remember(live, texts, index, layers)
            if not keep:
                return
            if few:
                kept = torch.tensor(keep, device=self.device)
                live, tokens, index = [live[i] for i in keep], tokens[kept], index[kept]
                groups = known.groups(index, self.device)
                for layer in layers:
                    layer.take(kept, groups)

    def _layers(self, known: Known, index: Tensor) -> list[SamplesLayer]:
        """Caches of samples behind some texts that were read, ``index[r]`` that of row r."""
        store, in_parts = self._reader.store, self._reader.in_parts
        groups = known.groups(index, self.device)
        return [
            SamplesLayer(store.taken(known, number), groups, in_parts)
            for number in range(store.layers)
        ]

    def _mask(
        self, begun: Tokens, lengths: Tensor, index: Tensor, step: int
    ) -> Tensor | dict[str, Tensor]:
        """The additive mask of the samples' token ``step`` (from 0) behind their beginnings."""
        place = lengths[index][:, None] + torch.arange(step + 1, device=lengths.device)
        own = Tokens(place, place, place + 1, torch.full_like(place, TRUNK))
        last = torch.full_like(index, step)[:, None]
        return additive_mask(self.model, own.at(last), joined(begun.rows(index), own))

    def _remember(
        self, rows: list[DrawnRow], texts: list[Ids], index: Tensor, layers: list[SamplesLayer]
    ) -> None:
        """Keeps what was computed of the rows that stopped and may be gone on from."""
        chosen = [i for i, row in enumerate(rows) if row.stop in ("length", "entropy", "stop")]
        if not chosen:
            return
        size = layers[0].own[0].shape[2]
        places = index.tolist()
        parents = [texts[places[i]] for i in chosen]
        pieces = [[(tuple(rows[i].tokens[:size]), 0)] for i in chosen]
        at = torch.tensor(chosen, device=self.device)
        new: list[Pair] = []
        for layer in layers:
            keys, values = layer.own
            new.append((keys[at], values[at]))
        self._reader.store.remember(parents, pieces, new)

    def _choose(self, rows: list[DrawnRow], logits: Tensor, index: Tensor | None = None) -> Tensor:
        """The next token of each row (R,) from logits (P, V), at ``index[r]``; marks what stops."""
        at = slice(None) if index is None else index
        probabilities, cut = distribution(_wide(logits), self.temperature, self.top_p)
        entropy = torch.special.entr(probabilities).sum(-1)[at]
        draws = torch.tensor(
            [0.0 if row.stop else row.draws[len(row.tokens)] for row in rows],
            dtype=torch.float64, device=logits.device,
        )  # fmt: skip
        cumulative = probabilities.double().cumsum(-1)
        _assert_numbers(cumulative[:, -1])
        tokens = inverse(cumulative, draws, index).clamp(max=logits.shape[-1] - 1)
        margins = border_distance(cumulative, draws, tokens, index)
        if any(row.greedy for row in rows):
            greedy = torch.tensor([row.greedy for row in rows], device=logits.device)
            tokens = torch.where(greedy, logits.argmax(-1)[at], tokens)
            largest = logits.topk(2, dim=-1).values.double()
            margins = torch.where(greedy, (largest[:, 0] - largest[:, 1])[at], margins)
        cuts = torch.full_like(margins, math.inf) if cut is None else cut[at].double()
        told = torch.stack([entropy.double(), margins, cuts]).tolist()
        for row, token, uncertainty, margin, near in zip(rows, tokens.tolist(), *told, strict=True):
            append(row, token, uncertainty, margin, near, self._end_ids)
        return tokens


def _wide(logits: Tensor) -> Tensor:
    """In float32, or float64 where they are so."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _assert_numbers(logits: Tensor) -> None:
    if torch.isnan(logits).any():
        raise PolicyIsNotFinite("the policy's logits are NaN: its weights or its dtype are broken")
