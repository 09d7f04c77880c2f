"""The Hugging Face policy engine, with continuous batching.

Requests join at any step, and each is returned when its samples are done. A prefix continues from
its cached keys and values (``kv_cache/cached_forward.py``), which its samples share. Every sample
draws from its own keyed stream of uniform numbers (inverse of the cumulative distribution, one
number a token), so that no draw depends on the batch. Independent of search and of Ray.
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
from orchestrator.engines.continuous import sample_all
from orchestrator.engines.huggingface.draws import (
    ActiveSample,
    TokenIntervals,
    append,
    distribution,
    new_sample,
    to_result,
    uniform_draws,
)
from orchestrator.engines.huggingface.logits_cache import LogitsCache
from orchestrator.engines.huggingface.sample_batch import SampleBatch
from orchestrator.engines.kv_cache.cached_forward import CachedForward
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.search.engines import Ids, Sampled, SampleRequest, TopRequest, TopTokens

ROWS_PER_BATCH = 512  # more rows gain nothing in plain decoding on a CPU, and take memory


class PolicyLogitsAreNaN(ValueError):
    """The policy's logits are NaN, so samples from them would be meaningless."""


@dataclass
class _ActiveRequest:
    """A request; ``prefill`` counts the tokens computed for its context (prompt and prefix)."""

    request: SampleRequest
    samples: list[ActiveSample]
    prefill: int = 0


class HuggingFacePolicy:
    """A causal language model that samples.

    Args:
        checkpoint: folder or hub name.
        temperature: divides the logits; the same for every method.
        top_p: nucleus; 1 is the full distribution.
        device: torch device name.
        cache_mib: memory (MiB) of the KV cache.
        stop_at_eos: whether an end token ends a response; if not, it is an ordinary token.
        dtype: dtype of the weights; logits are converted to float32 at least.
    """

    def __init__(
        self,
        checkpoint: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        device: str = "cpu",
        cache_mib: float = MEMORY_MIB,
        stop_at_eos: bool = True,
        dtype: Dtype = "float32",
    ) -> None:
        self.chat = load_chat(checkpoint)
        self.model: PreTrainedModel = load_policy(checkpoint, DTYPES[dtype]).to(device).eval()
        self._forward = CachedForward(self.model, self._last_logits, 0, cache_mib)
        self._logits_cache = LogitsCache()
        self._end_ids = self.chat.end_ids if stop_at_eos else ()
        self._stop_readers: dict[tuple[str, ...], StopReader] = {}
        self._request_ids = count()
        self._active: dict[int, _ActiveRequest] = {}
        self._waiting: list[tuple[Ids, ActiveSample]] = []  # samples with their contexts
        self._batch = SampleBatch(self.model, self._forward, device)
        self.temperature, self.top_p, self.device = temperature, top_p, device

    def clear_cache(self) -> None:
        """Clear the caches of keys, values and logits."""
        self._forward.clear_cache()
        self._logits_cache = LogitsCache()

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Sample all requests; result i is of request i. No other requests may be in progress."""
        return sample_all(self, requests)

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Enqueue requests, whose samples join at steps with free rows; return their ids."""
        draws = uniform_draws(requests)
        ids = list(islice(self._request_ids, len(requests)))
        for request_id, request in zip(ids, requests, strict=True):
            context = request.prompt_ids + request.prefix_ids
            stops = self._stop_reader(request.stops)
            samples = [new_sample(request_id, request, next(draws), stops) for _ in request.keys]
            self._active[request_id] = _ActiveRequest(request, samples)
            self._waiting += [(context, sample) for sample in samples]
        # Contexts of similar length are consecutive, and the samples of one context.
        self._waiting.sort(key=lambda waiting: (len(waiting[0]), waiting[0]))
        return ids

    @torch.inference_mode()
    def step(self) -> dict[int, Sampled]:
        """Admit waiting samples; if no request finishes, sample one token for each running sample.

        Returns the finished requests by id.

        Raises:
            PolicyLogitsAreNaN: some logits are NaN.
        """
        self._admit()
        done = self._pop_finished()
        if not done and self._batch.live:
            logits = self._batch.forward()
            slots = self._batch.slots
            live = [slot.live for slot in slots]
            tokens = self._choose([slot.sample for slot in slots], logits)
            for i, slot in enumerate(slots):
                # These logits belong to the context at which the sample stopped.
                if live[i] and slot.sample.stop == "entropy":
                    self._logits_cache.put(slot.context + tuple(slot.sample.tokens), logits[i])
            done = self._pop_finished()
            self._batch.advance(tokens)
        return done

    def abort(self) -> None:
        """Drop all unfinished requests."""
        self._active.clear()
        self._waiting.clear()
        self._batch.clear()

    @torch.inference_mode()
    def top_next_tokens(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Return next-token candidates of each request by falling logit; ties by the smaller id."""
        results: list[TopTokens] = []
        for start in range(0, len(requests), ROWS_PER_BATCH):
            chunk = requests[start : start + ROWS_PER_BATCH]
            contexts = list(dict.fromkeys(r.prompt_ids + r.prefix_ids for r in chunk))
            logits, computed = self._next_logits(contexts)
            ordered = torch.sort(_at_least_float32(logits), descending=True, stable=True)
            values, ids = (part.cpu() for part in ordered)
            index = {context: i for i, context in enumerate(contexts)}
            for request in chunk:
                i = index[request.prompt_ids + request.prefix_ids]
                top_ids = ids[i, : request.count].tolist()
                top_logits = values[i, : request.count + 1].tolist()
                last = top_logits[request.count - 1 :]
                results.append(
                    TopTokens(
                        tuple(map(self._token_or_end, top_ids)),
                        tuple(top_logits[: request.count]),
                        computed[i],
                        last[0] - last[1] if len(last) > 1 else math.inf,
                    )
                )
                computed[i] = 0  # counted for the first request of a context
        return results

    def log_probs(self, rows: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Return log pi(y | x) in nats of responses (x, y), at temperature 1."""
        return response_log_probs(self.model, rows, self.chat.tokenizer.eos_token_id)

    def _stop_reader(self, stops: tuple[str, ...]) -> StopReader | None:
        if stops and stops not in self._stop_readers:
            self._stop_readers[stops] = StopReader(self.chat, stops)
        return self._stop_readers.get(stops)

    def _token_or_end(self, token: int) -> int | None:
        return None if token in self._end_ids else token

    def _last_logits(self, **inputs: object) -> Tensor:
        logits: Tensor = self.model(**inputs, logits_to_keep=1).logits
        return logits

    def _next_logits(self, contexts: list[Ids]) -> tuple[Tensor, list[int]]:
        """Return logits (P, V) after each of P different contexts, and the tokens computed."""
        cached = [self._logits_cache.get(context) for context in contexts]
        missing = [logits is None for logits in cached]
        outputs = self._forward.run(contexts, [()] * len(contexts), missing)
        rows = []
        for logits, output in zip(cached, outputs, strict=True):
            last = output.last if logits is None else logits
            assert last is not None, "requested, since it is not cached"
            rows.append(last)
        stacked = torch.stack(rows)
        _check_not_nan(stacked)
        return stacked, [output.tokens_computed for output in outputs]

    def _admit(self) -> None:
        """Draw the first tokens of waiting samples; samples that continue join the batch."""
        admitted = self._pop_waiting()
        if not admitted:
            return
        contexts = list(dict.fromkeys(context for context, _ in admitted))
        positions = {context: i for i, context in enumerate(contexts)}
        logits, computed = self._next_logits(contexts)
        for context, context_logits in zip(contexts, logits, strict=True):
            self._logits_cache.put(context, context_logits)
        for context, sample in admitted:  # counted for the first request of a context
            self._active[sample.request].prefill += computed[positions[context]]
            computed[positions[context]] = 0
        index = torch.tensor([positions[context] for context, _ in admitted], device=self.device)
        tokens = self._choose([sample for _, sample in admitted], logits, index)
        live = [i for i, (_, sample) in enumerate(admitted) if sample.stop is None]
        if live:
            rows = torch.tensor(live, device=self.device)
            self._batch.join([admitted[i] for i in live], tokens[rows])

    def _pop_waiting(self) -> list[tuple[Ids, ActiveSample]]:
        """Pop as many waiting samples as fit the batch.

        One-token samples need no batch row; only their number of distinct contexts is limited.
        """
        room = ROWS_PER_BATCH - self._batch.live if self._waiting else 0
        rows, contexts, size = 0, set[Ids](), 0
        for context, sample in self._waiting:
            rows += sample.max_new_tokens > 1
            contexts.add(context)
            if max(rows, len(contexts)) > room:
                break
            size += 1
        admitted, self._waiting = self._waiting[:size], self._waiting[size:]
        return admitted

    def _pop_finished(self) -> dict[int, Sampled]:
        """Pop the requests all of whose samples have stopped; return their results by id."""
        finished = [
            request_id
            for request_id, active in self._active.items()
            if all(sample.stop is not None for sample in active.samples)
        ]
        if not finished:
            return {}
        ids = set(finished)
        self._batch.cache_states(
            [i for i, slot in enumerate(self._batch.slots) if slot.sample.request in ids]
        )
        results = {}
        for request_id in finished:
            active = self._active.pop(request_id)
            chat = self.chat if active.request.texts else None
            results[request_id] = to_result(active.samples, active.prefill, chat)
        return results

    def _choose(
        self, samples: list[ActiveSample], logits: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """Draw the next token of each sample (R,); append it, or stop the sample.

        ``index`` (R,) is the row of ``logits`` (P, V) of each sample; None: sample r's is row r.
        """
        rows = slice(None) if index is None else index
        probabilities, cut = distribution(_at_least_float32(logits), self.temperature, self.top_p)
        entropy = torch.zeros(len(samples), device=logits.device)
        if any(sample.needs_entropies for sample in samples):
            entropy = torch.special.entr(probabilities).sum(-1)[rows]
        draws = torch.tensor(
            [0.0 if sample.stop else sample.draws[len(sample.tokens)] for sample in samples],
            dtype=torch.float64, device=logits.device,
        )  # fmt: skip
        intervals = TokenIntervals(probabilities)
        _check_not_nan(intervals.total)
        tokens, margins = intervals.draw(draws, index)
        if any(sample.greedy for sample in samples):
            greedy = torch.tensor([sample.greedy for sample in samples], device=logits.device)
            tokens = torch.where(greedy, logits.argmax(-1)[rows], tokens)
            largest = logits.topk(2, dim=-1).values.double()
            margins = torch.where(greedy, (largest[:, 0] - largest[:, 1])[rows], margins)
        cuts = torch.full_like(margins, math.inf) if cut is None else cut[rows].double()
        columns = torch.stack([entropy.double(), margins, cuts]).tolist()
        for sample, token, nats, margin, top_p_margin in zip(
            samples, tokens.tolist(), *columns, strict=True
        ):
            append(sample, token, nats, margin, top_p_margin, self._end_ids)
        return tokens


def _at_least_float32(logits: Tensor) -> Tensor:
    """Return float64 logits unchanged, others in float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _check_not_nan(values: Tensor) -> None:
    if torch.isnan(values).any():
        raise PolicyLogitsAreNaN("the policy's logits are NaN: its weights or its dtype are broken")
