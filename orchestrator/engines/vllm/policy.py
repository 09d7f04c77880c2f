"""The vLLM policy engine, asked like the Hugging Face one and with the same keyed draws.

Each sample is a request of its own to vLLM, which batches them continuously and reads what begins
as an earlier text did from its prefix cache, in whole blocks. Knows nothing of search or of Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Literal

from orchestrator.checkpoints.checkpoint import check_policy_weights
from orchestrator.conversations.chat import load_chat
from orchestrator.engines.continuous import sampled
from orchestrator.engines.huggingface.policy import PolicyIsNotFinite
from orchestrator.engines.vllm.generator import Ask, Generator
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
class _Row:
    """One sample on its way: the tokens drawn so far, the end token among them."""

    request: int
    text: Ids
    key: int
    asked: SampleRequest
    tokens: list[int] = field(default_factory=list)
    sampled: int = 0
    computed: int = 0
    margin: float = math.inf
    stop: Literal["end", "length", "stop"] | None = None


class VllmPolicy:
    """A causal language model that samples, behind vLLM.

    Args:
        checkpoint: folder or hub name.
        temperature: divides the logits; the same for every method.
        top_p: nucleus; 1 is the whole distribution.
        device: torch device name; vLLM is built for one kind of device.
        ends: whether the end token ends a response; if not it is a token like all others.
        dtype: of weights and arithmetic, in vLLM's words.
        cache_mib: of keys and values; None is the default of the device.

    The engine takes as many threads as torch has in this process.

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
        ends: bool = True,
        dtype: str = "float32",
        cache_mib: int | None = None,
    ) -> None:
        check_served(checkpoint)
        check_policy_weights(checkpoint)  # vLLM takes some checkpoints that lack weights
        self.chat = load_chat(checkpoint)
        self.temperature, self.top_p, self.device = temperature, top_p, device
        self._checkpoint = checkpoint
        self._end_ids = self.chat.end_ids if ends else ()
        self._numbers, self._samples = count(), count()
        self._orders: dict[int, list[_Row]] = {}  # requests that are not done
        self._rows: dict[int, _Row] = {}  # their samples under way, by vLLM's numbers
        start = partial(Generator, temperature=temperature, top_p=top_p, dtype=dtype)
        self._engine = VllmProcess(checkpoint, device, start, cache_mib)

    def close(self) -> None:
        """Ends the engine's process; a policy that is no longer used does so by itself."""
        self._engine.close()

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._engine.ask("forget")

    def sample(self, requests: Sequence[SampleRequest]) -> list[Sampled]:
        """Samples all requests; result i belongs to request i. No others may be under way.

        Raises:
            ValueError: as of ``add``.
            TextDoesNotFit: likewise.
            PolicyIsNotFinite: some logits were NaN.
            RuntimeError: the engine's process has ended.
        """
        return sampled(self, requests)

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Takes requests, whose samples join those under way; their numbers.

        Raises:
            ValueError: a request wants entropies, or would stop by them: vLLM does not tell them.
            TextDoesNotFit: a text is empty, or longer than vLLM reads with all its new tokens.
            RuntimeError: the engine is closed.
        """
        if any(request.tells_entropies for request in requests):
            raise ValueError(
                f"{self._checkpoint}: engine 'vllm' gives no entropies; methods that stop by them"
                " (cards) run on engine: transformers"
            )
        texts = [request.prompt_ids + request.prefix_ids for request in requests]
        self._engine.check_fits(
            [
                (len(text), len(text) + request.max_new_tokens)
                for text, request in zip(texts, requests, strict=True)
            ]
        )
        numbers = list(islice(self._numbers, len(requests)))
        rows = []
        for number, text, request in zip(numbers, texts, requests, strict=True):
            self._orders[number] = [_Row(number, text, key, request) for key in request.keys]
            rows += self._orders[number]
        self._go_on(rows)
        return numbers

    def step(self) -> dict[int, Sampled]:
        """Waits until some samples are done; the requests that are, by their numbers.

        Raises:
            PolicyIsNotFinite: some logits were NaN.
            RuntimeError: the engine's process has ended.
        """
        again, changed = [], set()
        for drawn in self._engine.done():
            row = self._rows.pop(drawn.number, None)
            if row is None:
                continue  # of a request that was dropped meanwhile
            if drawn.broken:
                raise PolicyIsNotFinite(
                    f"{self._checkpoint}: the policy's logits are NaN: its weights or its dtype"
                    " are broken"
                )
            row.margin = min(row.margin, drawn.margin)
            row.tokens += drawn.tokens
            row.sampled += len(drawn.tokens)
            row.computed += drawn.computed
            self._mark(row)
            # One goes on where vLLM saw a stop in the text that is not in the continuation's own,
            # such as a space that only stands between the prompt and the continuation.
            if row.stop is None:
                again.append(row)
            changed.add(row.request)
        self._go_on(again)
        ended = [n for n in sorted(changed) if all(row.stop for row in self._orders[n])]
        return {number: self._sampled(self._orders.pop(number)) for number in ended}

    def abort(self) -> None:
        """Drops all requests that are not done."""
        self._engine.tell("abort")
        self._orders.clear()
        self._rows.clear()

    def top(self, requests: Sequence[TopRequest]) -> list[TopTokens]:
        """Next-token candidates of each request by falling log-probability; ties by the smaller id.

        Log-probabilities stand for logits: they differ by a constant of the position.
        """
        counts: dict[Ids, int] = {}
        for request in requests:
            text = request.prompt_ids + request.prefix_ids
            counts[text] = max(counts.get(text, 0), request.count)
        self._engine.check_fits([(len(r.prompt_ids + r.prefix_ids) + 1,) for r in requests])
        asked = [(list(text), count) for text, count in counts.items()]
        answers = self._engine.ask("top", asked) if asked else []
        found = dict(zip(counts, answers, strict=True))
        results = []
        for request in requests:
            text = request.prompt_ids + request.prefix_ids
            ids, values, computed = found[text]
            results.append(
                TopTokens(
                    tuple(None if i in self._end_ids else i for i in ids[: request.count]),
                    tuple(values[: request.count]),
                    computed,
                )
            )
            found[text] = ids, values, 0  # paid for by the first who asks
        return results

    def _go_on(self, rows: list[_Row]) -> None:
        """Has rows sampled from where they are until vLLM stops."""
        asked = [
            (
                next(self._samples),
                Ask(
                    [*row.text, *row.tokens],
                    None if row.asked.greedy else row.key,
                    len(row.tokens),
                    row.asked.max_new_tokens,
                    row.asked.stops,
                    self._end_ids,
                ),
            )
            for row in rows
        ]
        self._rows.update((number, row) for (number, _), row in zip(asked, rows, strict=True))
        if asked:
            self._engine.tell("add", asked)

    def _mark(self, row: _Row) -> None:
        """Says why a row stops, and cuts it behind a stop."""
        content = row.tokens[:-1] if row.tokens[-1] in self._end_ids else row.tokens
        place = self._stop_place(content, row.asked.stops)
        if place is not None:
            row.tokens, row.stop = row.tokens[:place], "stop"
        elif len(content) < len(row.tokens):
            row.tokens, row.stop = content, "end"
        elif len(row.tokens) == row.asked.max_new_tokens:
            row.stop = "length"

    def _stop_place(self, tokens: list[int], stops: tuple[str, ...]) -> int | None:
        """How many tokens it takes until one of the texts stands in their own text."""
        if not stops or not self._holds(tokens, stops):
            return None
        if not self._holds(tokens[:-1], stops):
            return len(tokens)
        return next(n for n in range(len(tokens)) if self._holds(tokens[:n], stops))

    def _holds(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        text = self.chat.text(tokens)
        return any(stop in text for stop in stops)

    def _sampled(self, rows: list[_Row]) -> Sampled:
        return Sampled(
            tuple(
                Continuation(
                    tuple(row.tokens),
                    row.stop,  # type: ignore[arg-type]
                    margin=row.margin,
                    text=self.chat.text(row.tokens) if row.asked.texts else None,
                )
                for row in rows
            ),
            sum(row.sampled for row in rows),
            sum(row.computed for row in rows),
        )
