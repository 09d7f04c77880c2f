"""What samples in the process of a vLLM policy engine, and what it is asked for."""

import math
from dataclasses import dataclass
from typing import Any

from orchestrator.engines.vllm.process import language_model

ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class Ask:
    """What the engine's process is asked for: a text to go on from, its draws, when to stop."""

    text: list[int]
    key: int | None  # None takes the likeliest token
    start: int  # how many of ``count`` tokens there are
    count: int
    stops: tuple[str, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """A sample that is done: its new tokens, how many were computed, its margin.

    ``broken``: whether some of its logits were NaN.
    """

    number: int
    tokens: list[int]
    computed: int
    margin: float
    broken: bool


class Generator:
    """The engine, in its process."""

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

        self._draws = keyed_draws(temperature, top_p)
        self._model: Any = language_model(
            checkpoint,
            device,
            cache_mib,
            dtype=dtype,
            enable_prefix_caching=True,
            max_num_seqs=ROWS_PER_BATCH,
            max_logprobs=-1,  # as many as there are tokens
            logits_processors=[self._draws],
            generation_config="vllm",  # what the checkpoint recommends is not asked for
            enforce_eager=device == "cpu",
        )
        self._asked: dict[int, Ask] = {}  # samples under way
        self.longest = int(self._model.model_config.max_model_len)

    @property
    def busy(self) -> bool:
        """Whether samples are under way."""
        return bool(self._asked)

    def add(self, asked: list[tuple[int, Ask]]) -> None:
        """Takes samples by their numbers; they join those under way."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for number, one in asked:
            parameters = SamplingParams(
                temperature=0.0,  # the draws leave one token
                max_tokens=one.count - one.start,
                ignore_eos=True,  # the ends are named
                stop_token_ids=list(one.ends),
                stop=list(one.stops),
                detokenize=bool(one.stops),
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args={
                    "number": number,
                    "key": one.key,
                    "start": one.start,
                    "count": one.count,
                },
            )
            prompt = {"prompt_token_ids": one.text}
            self._model.llm_engine.add_request(str(number), prompt, parameters)
            self._asked[number] = one

    def step(self) -> list[Drawn]:
        """Goes on with all samples under way; those that are done."""
        found = []
        for output in self._model.llm_engine.step():
            number = int(output.request_id)
            one = self._asked.pop(number)
            tokens = list(output.outputs[0].token_ids)
            # Every token but the last goes through the model, to see what comes after it.
            computed = len(one.text) - output.num_cached_tokens + len(tokens) - 1
            margin = self._draws.margins.pop(number, math.inf)
            broken = number in self._draws.broken
            self._draws.broken.discard(number)
            found.append(Drawn(number, tokens, computed, margin, broken))
        return found

    def abort(self) -> None:
        """Drops all samples under way."""
        if self._asked:
            self._model.llm_engine.abort_request([str(number) for number in self._asked])
        self._asked.clear()
        self._draws.margins.clear()
        self._draws.broken.clear()

    def top(self, asked: list[tuple[list[int], int]]) -> list[tuple[list[int], list[float], int]]:
        """The likeliest next tokens of each text, their log-probabilities, the tokens computed."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(temperature=0.0, max_tokens=1, logprobs=count, detokenize=False)
            for _, count in asked
        ]
        found = self._model.generate(
            [{"prompt_token_ids": text} for text, _ in asked], parameters, use_tqdm=False
        )
        answers = []
        for (text, _), output in zip(asked, found, strict=True):
            values = {i: one.logprob for i, one in output.outputs[0].logprobs[0].items()}
            ids = sorted(values, key=lambda i: (-values[i], i))
            computed = len(text) - output.num_cached_tokens
            answers.append((ids, [values[i] for i in ids], computed))
        return answers

    def forget(self) -> None:
        """Empties the prefix cache."""
        self._model.reset_prefix_cache()
