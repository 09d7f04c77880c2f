"""The vLLM policy engine, with the interface and the keyed draws of the Hugging Face one.

Each sample is a separate request to vLLM, which batches them continuously and reuses cached
prefixes in full blocks. Independent of search and of Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Literal

from orchestrator.checkpoints.checkpoint import check_policy_weights
from orchestrator.conversations.chat import load_chat
from orchestrator.engines.continuous import sample_all
from orchestrator.engines.huggingface.policy import PolicyLogitsAreNaN
from orchestrator.engines.vllm.generator import FinishedSample, Generator, SampleCall
from orchestrator.engines.vllm.process import VllmProcess, check_served
from orchestrator.search.engines import (
    Continuation,
    Ids,
    Sampled,
    SampleRequest,
    TopRequest,
    TopTokens,
)


@dataclass
class _ActiveSample:
    """One sample in progress; ``tokens`` are those drawn so far, the end token included."""

    request_id: int
    context: Ids
    key: int
    request: SampleRequest
    tokens: list[int] = field(default_factory=list)
    tokens_sampled: int = 0
    tokens_computed: int = 0
    margin: float = math.inf
    stop: Literal["end", "length", "stop"] | None = None


class VllmPolicy:
    """A causal language model that samples, on vLLM.

    Args:
        checkpoint: folder or hub name.
        temperature: divides the logits; the same for every method.
        top_p: nucleus; 1 is the full distribution.
        device: torch device name; vLLM is built for one kind of device.
        stop_at_eos: whether an end token ends a response; if not, it is an ordinary token.
        dtype: dtype of weights and arithmetic, in vLLM's terms.
        cache_mib: memory of the KV cache (MiB); None: the default of the device.

    The engine uses as many threads as torch does in this process.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: the checkpoint is an adapter, or its weights are not exactly a causal language
            model's.
        RuntimeError: vLLM cannot serve the model.
    """

    def __init__(
        self,
        checkpoint: str,
        temperature: float = 1.0,
        top_p: float = 1.0,
        device: str = "cpu",
        stop_at_eos: bool = True,
        dtype: str = "float32",
        cache_mib: int | None = None,
    ) -> None:
        check_served(checkpoint)
        check_policy_weights(checkpoint)  # vLLM loads some checkpoints that lack weights
        self.chat = load_chat(checkpoint)
        self.temperature, self.top_p, self.device = temperature, top_p, device
        self._checkpoint = checkpoint
        self._end_ids = self.chat.end_ids if stop_at_eos else ()
        self._request_ids, self._sample_ids = count(), count()
        self._requests: dict[int, list[_ActiveSample]] = {}  # unfinished
        self._active: dict[int, _ActiveSample] = {}  # keyed by sample id
        start = partial(Generator, temperature=temperature, top_p=top_p, dtype=dtype)
        self._engine = VllmProcess(checkpoint, device, start, cache_mib)

    def close(self) -> None:
        """End the engine's process. A policy that is garbage-collected does so by itself."""
        self._engine.close()

    def clear_cache(self) -> None:
        """Clear the prefix cache.

        Raises:
            RuntimeError: the engine is closed, or its process has ended.
        """
        self._engine.call("clear_cache")

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Sample all requests; result i is of request i. No other requests may be in progress.

        Raises:
            ValueError: as ``add``.
            SequenceDoesNotFit: as ``add``.
            PolicyLogitsAreNaN: some logits were NaN.
            RuntimeError: as ``add`` and ``step``.
        """
        return sample_all(self, requests)

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Enqueue requests, whose samples join those in progress; return their ids.

        Raises:
            ValueError: a request needs entropies, which vLLM does not return.
            SequenceDoesNotFit: a context is empty, or with all its new tokens longer than vLLM's
                limit.
            RuntimeError: the engine is closed.
        """
        if any(request.needs_entropies for request in requests):
            raise ValueError(
                f"{self._checkpoint}: engine 'vllm' returns no entropies; methods that need them"
                " (cards) run on engine: transformers"
            )
        contexts = [request.prompt_ids + request.prefix_ids for request in requests]
        self._engine.check_fits(
            [
                (len(context), len(context) + request.max_new_tokens)
                for context, request in zip(contexts, requests, strict=True)
            ]
        )
        ids = list(islice(self._request_ids, len(requests)))
        samples = []
        for request_id, context, request in zip(ids, contexts, requests, strict=True):
            self._requests[request_id] = [
                _ActiveSample(request_id, context, key, request) for key in request.keys
            ]
            samples += self._requests[request_id]
        self._submit(samples)
        return ids

    def step(self) -> dict[int, Sampled]:
        """Wait until some samples are done; return the finished requests by id.

        Raises:
            PolicyLogitsAreNaN: some logits were NaN.
            RuntimeError: vLLM failed and dropped all samples, so that ``abort`` must follow; or the
                engine's process has ended.
        """
        resumed, changed = [], set()
        for finished in self._engine.wait():
            sample = self._active.pop(finished.sample_id, None)
            if sample is None:
                continue  # its request was aborted
            if finished.has_nan_logits:
                raise PolicyLogitsAreNaN(
                    f"{self._checkpoint}: the policy's logits are NaN: its weights or its dtype"
                    " are broken"
                )
            self._append(sample, finished)
            # vLLM may stop at a text that is not in the continuation's own text, such as a space
            # between the prompt and the continuation. Such a sample is resumed.
            if sample.stop is None:
                resumed.append(sample)
            changed.add(sample.request_id)
        self._submit(resumed)
        ended = [n for n in sorted(changed) if all(sample.stop for sample in self._requests[n])]
        return {n: self._to_result(self._requests.pop(n)) for n in ended}

    def abort(self) -> None:
        """Drop all unfinished requests."""
        self._engine.abort()
        self._requests.clear()
        self._active.clear()

    def top_next_tokens(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Return next-token candidates by falling log-probability; ties by the smaller id.

        Log-probabilities replace logits: they differ by a constant per position.

        Raises:
            SequenceDoesNotFit: a context is empty or too long.
            RuntimeError: vLLM failed, the engine is closed, or its process has ended.
        """
        counts: dict[Ids, int] = {}
        for request in requests:
            context = request.prompt_ids + request.prefix_ids
            counts[context] = max(counts.get(context, 0), request.count)
        self._engine.check_fits([(len(r.prompt_ids + r.prefix_ids) + 1,) for r in requests])
        calls = [(list(context), number) for context, number in counts.items()]
        answers = self._engine.call("top_next_tokens", calls) if calls else []
        top_of = dict(zip(counts, answers, strict=True))
        results = []
        for request in requests:
            context = request.prompt_ids + request.prefix_ids
            ids, values, computed = top_of[context]
            results.append(
                TopTokens(
                    tuple(None if i in self._end_ids else i for i in ids[: request.count]),
                    tuple(values[: request.count]),
                    computed,
                )
            )
            top_of[context] = ids, values, 0  # counted for the first request of a context
        return results

    def _submit(self, samples: list[_ActiveSample]) -> None:
        """Send samples to vLLM, each to continue after its tokens so far."""
        calls = [
            (
                next(self._sample_ids),
                SampleCall(
                    [*sample.context, *sample.tokens],
                    None if sample.request.greedy else sample.key,
                    len(sample.tokens),
                    sample.request.max_new_tokens,
                    sample.request.stops,
                    self._end_ids,
                ),
            )
            for sample in samples
        ]
        self._active.update(
            (sample_id, sample) for (sample_id, _), sample in zip(calls, samples, strict=True)
        )
        if calls:
            self._engine.post("add", calls)

    def _append(self, sample: _ActiveSample, finished: FinishedSample) -> None:
        """Append new tokens to a sample, set why it stops, and truncate it after a stop."""
        sample.margin = min(sample.margin, finished.margin)
        sample.tokens += finished.tokens
        sample.tokens_sampled += len(finished.tokens)
        sample.tokens_computed += finished.tokens_computed
        ended = sample.tokens[-1] in self._end_ids
        content = sample.tokens[:-1] if ended else sample.tokens
        length = self._length_at_stop(content, sample.request.stops)
        if length is not None:
            sample.tokens, sample.stop = sample.tokens[:length], "stop"
        elif len(content) < len(sample.tokens):
            sample.tokens, sample.stop = content, "end"
        elif len(sample.tokens) == sample.request.max_new_tokens:
            sample.stop = "length"

    def _length_at_stop(self, tokens: list[int], stops: tuple[str, ...]) -> int | None:
        """Return the fewest tokens whose text holds a stop; None if the full text holds none."""
        if not stops or not self._holds(tokens, stops):
            return None
        if not self._holds(tokens[:-1], stops):
            return len(tokens)
        return next(n for n in range(len(tokens)) if self._holds(tokens[:n], stops))

    def _holds(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        text = self.chat.text(tokens)
        return any(stop in text for stop in stops)

    def _to_result(self, samples: list[_ActiveSample]) -> Sampled:
        return Sampled(
            tuple(
                Continuation(
                    tuple(sample.tokens),
                    sample.stop,  # type: ignore[arg-type]
                    margin=sample.margin,
                    text=self.chat.text(sample.tokens) if sample.request.texts else None,
                )
                for sample in samples
            ),
            sum(sample.tokens_sampled for sample in samples),
            sum(sample.tokens_computed for sample in samples),
        )
