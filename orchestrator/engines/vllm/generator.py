"""Generates samples with vLLM, in the child process of a vLLM policy; and the messages to it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.engines.vllm.language_model import aborted_on_error, language_model

if TYPE_CHECKING:
    from vllm import LLM

MAX_NUM_SEQS = 512


@dataclass(frozen=True)
class SampleCall:
    """One sample to generate: its context, its draws, and where it stops.

    Attributes:
        context: token ids of prompt, prefix and the tokens generated so far.
        key: key of the random stream; None for a greedy sample.
        start: number of generated tokens that are already in ``context``.
        count: largest number of generated tokens, those in ``context`` included.
        stops: texts that end the sample.
        end_ids: tokens that end the sample.
    """

    context: list[int]
    key: int | None
    start: int
    count: int
    stops: tuple[str, ...]
    end_ids: tuple[int, ...]


@dataclass(frozen=True)
class FinishedSample:
    """A sample that vLLM stopped.

    Attributes:
        sample_id: id of the sample.
        tokens: its new tokens.
        tokens_computed: tokens that went through the model.
        margin: smallest margin of its draws, see ``Continuation.margin``.
        has_nan_logits: whether some of its logits were NaN.
    """

    sample_id: int
    tokens: list[int]
    tokens_computed: int
    margin: float
    has_nan_logits: bool


class Generator:
    """Generates samples with vLLM. It runs in the child process that ``VllmProcess`` starts.

    Args:
        checkpoint: folder or hub name.
        device: kind of device.
        cache_mib: memory of the KV cache (MiB); None: the default of the device.
        temperature: divides the logits.
        top_p: nucleus.
        dtype: dtype of weights and arithmetic, in vLLM's terms.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str,
        cache_mib: int | None,
        *,
        temperature: float,
        top_p: float,
        dtype: str,
    ) -> None:
        from orchestrator.engines.vllm.draws import keyed_draws

        self._draw_processor = keyed_draws(temperature, top_p)
        self._model: LLM = language_model(
            checkpoint,
            device,
            cache_mib,
            dtype=dtype,
            enable_prefix_caching=True,
            max_num_seqs=MAX_NUM_SEQS,
            max_logprobs=-1,  # no limit
            logits_processors=[self._draw_processor],
            generation_config="vllm",  # ignore the checkpoint's recommended settings
            enforce_eager=device == "cpu",
        )
        self._active: dict[int, SampleCall] = {}
        self.max_length = int(self._model.model_config.max_model_len)

    @property
    def busy(self) -> bool:
        """Whether samples are in progress."""
        return bool(self._active)

    def add(self, calls: list[tuple[int, SampleCall]]) -> None:
        """Add samples by id; they join those in progress."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for sample_id, call in calls:
            parameters = SamplingParams(
                # Greedy: for a sample with a key, the logits processor sets all logits except that
                # of the drawn token to -inf.
                temperature=0.0,
                max_tokens=call.count - call.start,
                ignore_eos=True,  # stop_token_ids holds the end tokens
                stop_token_ids=list(call.end_ids),
                stop=list(call.stops),
                detokenize=bool(call.stops),
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args={
                    "sample_id": sample_id,
                    "key": call.key,
                    "start": call.start,
                    "count": call.count,
                },
            )
            prompt = {"prompt_token_ids": call.context}
            self._model.llm_engine.add_request(str(sample_id), prompt, parameters)
            self._active[sample_id] = call

    def step(self) -> list[FinishedSample]:
        """Advance all samples in progress; return the finished ones."""
        finished = []
        for output in self._model.llm_engine.step():
            sample_id = int(output.request_id)
            call = self._active.pop(sample_id)
            tokens = list(output.outputs[0].token_ids)
            # Every token but the last goes through the model.
            computed = len(call.context) - output.num_cached_tokens + len(tokens) - 1
            margin = self._draw_processor.margins.pop(sample_id, math.inf)
            has_nan_logits = sample_id in self._draw_processor.nan_sample_ids
            self._draw_processor.nan_sample_ids.discard(sample_id)
            finished.append(FinishedSample(sample_id, tokens, computed, margin, has_nan_logits))
        return finished

    def abort(self) -> None:
        """Drop all samples in progress."""
        if self._active:
            self._model.llm_engine.abort_request([str(sample_id) for sample_id in self._active])
        self._active.clear()
        self._draw_processor.margins.clear()
        self._draw_processor.nan_sample_ids.clear()

    def top_next_tokens(
        self, calls: list[tuple[list[int], int]]
    ) -> list[tuple[list[int], list[float], int]]:
        """Return the likeliest next tokens of each context.

        Args:
            calls: contexts, each with the number of tokens wanted.

        Returns:
            Per context: token ids, their log-probabilities (nats), tokens computed.
        """
        from vllm import SamplingParams

        parameters = [
            SamplingParams(temperature=0.0, max_tokens=1, logprobs=count, detokenize=False)
            for _, count in calls
        ]
        with aborted_on_error(self._model):
            outputs = self._model.generate(
                [{"prompt_token_ids": context} for context, _ in calls], parameters, use_tqdm=False
            )
        results = []
        for (context, _), output in zip(calls, outputs, strict=True):
            values = {i: top.logprob for i, top in output.outputs[0].logprobs[0].items()}
            ids = sorted(values, key=lambda i: (-values[i], i))
            computed = len(context) - output.num_cached_tokens
            results.append((ids, [values[i] for i in ids], computed))
        return results

    def clear_cache(self) -> None:
        """Clear the prefix cache."""
        self._model.reset_prefix_cache()
