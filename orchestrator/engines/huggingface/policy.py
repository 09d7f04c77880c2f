"""The Hugging Face policy engine: requests in at any step, continuations out as they are done.

Each different prefix is read on from where it was read before (``reading.py``), its keys and
values then shared by its samples. Every sample draws from its own keyed stream of uniform
numbers (inverse of the cumulative distribution, one number a token), so that no draw depends on the
batch. Knows nothing of search or of Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.checkpoints.checkpoint import DTYPES, load_policy
from orchestrator.choices import Dtype
from orchestrator.conversations.chat import load_chat
from orchestrator.conversations.stop_texts import StopReader
from orchestrator.engines.continuous import sampled
from orchestrator.engines.huggingface.draws import (
    DrawnRow,
    Intervals,
    append,
    distribution,
    draws_of,
    new_row,
    sampled_of,
)
from orchestrator.engines.huggingface.next_logits import NextLogits
from orchestrator.engines.huggingface.sampling import Batch
from orchestrator.engines.kv_cache.cached_forward import Reader
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    TopRequest,
    TopTokens,
)  # fmt: skip

ROWS_PER_BATCH = 512  # past this, plain decoding on a CPU gains nothing and memory grows


class PolicyIsNotFinite(ValueError):
    """A policy gave NaN logits: what is sampled from them would look like text and mean nothing."""


@dataclass
class _Order:
    """A request under way; ``prefill`` tokens were computed of its prefix."""

    request: SampleRequest
    rows: list[DrawnRow]
    prefill: int = 0


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
        self._numbers = count()
        self._orders: dict[int, _Order] = {}  # what is not done
        self._waiting: list[tuple[Ids, DrawnRow]] = []
        self._batch = Batch(self.model, self._reader, device)
        self.temperature, self.top_p, self.device = temperature, top_p, device

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._reader.forget()
        self._behind = NextLogits()

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Samples all requests; result i belongs to request i. No others may be under way."""
        return sampled(self, requests)

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Takes requests, whose samples join those under way with the next step; their numbers."""
        draws = draws_of(requests)
        numbers = list(islice(self._numbers, len(requests)))
        for number, request in zip(numbers, requests, strict=True):
            text, stops = request.prompt_ids + request.prefix_ids, self._stop_reader(request.stops)
            own = [new_row(number, request, next(draws), stops) for _ in request.keys]
            self._orders[number] = _Order(request, own)
            self._waiting += [(text, row) for row in own]
        # Of like prefix length one after the other, and those of one prefix together.
        self._waiting.sort(key=lambda one: (len(one[0]), one[0]))
        return numbers

    @torch.inference_mode()
    def step(self) -> dict[int, Sampled]:
        """One more token of every sample under way; the requests that are done, by their numbers.

        Raises:
            PolicyIsNotFinite: some logits are NaN.
        """
        self._admit()
        done = self._done()
        if not done and self._batch.live:
            logits = self._batch.forward()
            slots = self._batch.slots
            going = [slot.live for slot in slots]
            tokens = self._choose([slot.row for slot in slots], logits)
            for i, slot in enumerate(slots):
                if going[i] and slot.row.stop == "entropy":  # what comes next is known already
                    self._behind.keep(slot.text + tuple(slot.row.tokens), logits[i])
            done = self._done()
            self._batch.went_on(tokens)
        return done

    def abort(self) -> None:
        """Drops all requests that are not done."""
        self._orders.clear()
        self._waiting.clear()
        self._batch.clear()

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

    def _admit(self) -> None:
        """Draws the first tokens of waiting samples; those that go on join the batch."""
        taken = self._next_waiting()
        if not taken:
            return
        texts = list(dict.fromkeys(text for text, _ in taken))
        place = {text: i for i, text in enumerate(texts)}
        logits, computed = self._next_logits(texts)
        for text, own in zip(texts, logits, strict=True):
            self._behind.keep(text, own)
        for text, row in taken:  # paid for by the first who asks
            self._orders[row.request].prefill += computed[place[text]]
            computed[place[text]] = 0
        index = torch.tensor([place[text] for text, _ in taken], device=self.device)
        tokens = self._choose([row for _, row in taken], logits, index)
        keep = [i for i, (_, row) in enumerate(taken) if row.stop is None]
        if keep:
            kept = torch.tensor(keep, device=self.device)
            self._batch.join([taken[i] for i in keep], tokens[kept])

    def _next_waiting(self) -> list[tuple[Ids, DrawnRow]]:
        """As many waiting samples as have room.

        Of those that want one token what counts is the different prefixes.
        """
        room = ROWS_PER_BATCH - self._batch.live if self._waiting else 0
        going, prefixes, most = 0, set[Ids](), 0
        for text, row in self._waiting:
            going += row.limit > 1
            prefixes.add(text)
            if max(going, len(prefixes)) > room:
                break
            most += 1
        taken, self._waiting = self._waiting[:most], self._waiting[most:]
        return taken

    def _done(self) -> dict[int, Sampled]:
        """The requests all of whose samples have stopped."""
        ended = [
            number
            for number, order in self._orders.items()
            if all(row.stop is not None for row in order.rows)
        ]
        if not ended:
            return {}
        numbers = set(ended)
        self._batch.keep(
            [i for i, slot in enumerate(self._batch.slots) if slot.row.request in numbers]
        )
        found = {}
        for number in ended:
            order = self._orders.pop(number)
            chat = self.chat if order.request.texts else None
            found[number] = sampled_of(order.rows, order.prefill, chat)
        return found

    def _choose(self, rows: list[DrawnRow], logits: Tensor, index: Tensor | None = None) -> Tensor:
        """The next token of each row (R,) from logits (P, V), at ``index[r]``; marks what stops."""
        at = slice(None) if index is None else index
        probabilities, cut = distribution(_wide(logits), self.temperature, self.top_p)
        entropy = torch.zeros(len(rows), device=logits.device)
        if any(row.uncertain for row in rows):
            entropy = torch.special.entr(probabilities).sum(-1)[at]
        draws = torch.tensor(
            [0.0 if row.stop else row.draws[len(row.tokens)] for row in rows],
            dtype=torch.float64, device=logits.device,
        )  # fmt: skip
        intervals = Intervals(probabilities)
        _assert_numbers(intervals.total)
        tokens, margins = intervals.drawn(draws, index)
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
