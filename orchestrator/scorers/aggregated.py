"""Aggregates the scores of any scorer at step ends to a prefix's score.

A reward model without steps scores r(x, y_<t) at the end of each step of the prefix, and at the end
of the prefix. An aggregate of these values is the prefix's score; the minimum, for example, is that
of the weakest step. Kinds with rewards of steps aggregate those themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.choices import Aggregation, Position
from orchestrator.rewards.aggregation import aggregate
from orchestrator.scorers.formats import BLANK_LINE
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.steps import check_delimiter, extended_step_ends, step_ends
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class AggregatedScorer(Scorer):
    """A scorer that aggregates the scores of another scorer over the steps of a prefix.

    The inner scorer's rewards are unbounded, so a product is that of their sigmoids. An incomplete
    last step counts, and an empty prefix is one step. For a request the inner scorer is called once
    for the steps of the prefix, and once for all steps that end in an extension.

    Args:
        inner: scores the prefixes.
        aggregation: how its scores are combined.
        step_delimiter: text that ends a step.

    Raises:
        ValueError: the inner scorer's tokenizer does not keep the delimiter.
    """

    def __init__(
        self, inner: Scorer, aggregation: Aggregation, step_delimiter: str = BLANK_LINE
    ) -> None:
        super().__init__(inner.chat, inner.position, None, inner.finished_position)
        check_delimiter(self.chat, step_delimiter)
        self.token_converter = inner.token_converter
        self.context_length = inner.context_length
        self._inner, self._how, self._delimiter = inner, aggregation, step_delimiter

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes by one call of the inner scorer, for all step ends."""
        ends = [self._ends(y, row) for y, row in zip(responses, cuts, strict=True)]
        inner_cuts = [sorted({t for steps in row for t in steps}) for row in ends]
        values = self._inner.prefix_scores(prompts, responses, inner_cuts, positions)
        results = []
        for row, inner_row, scores in zip(ends, inner_cuts, values, strict=True):
            index = {t: i for i, t in enumerate(inner_row)}
            starts = range(0, len(scores), max(len(inner_row), 1))  # one block per position
            results.append(
                [self._of([scores[s + index[t]] for t in steps]) for s in starts for steps in row]
            )
        return results

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score requests by one call of the inner scorer for prefixes and one for extensions."""
        ends = [self._extended_ends(request) for request in requests]
        inside = [
            sorted({t for steps in rows for t in steps if t < len(request.prefix_ids)})
            for request, rows in zip(requests, ends, strict=True)
        ]
        prompts, prefixes = [r.prompt_ids for r in requests], [r.prefix_ids for r in requests]
        with_steps = [i for i, steps in enumerate(inside) if steps]
        values = self._inner.prefix_scores(
            [prompts[i] for i in with_steps],
            [prefixes[i] for i in with_steps],
            [inside[i] for i in with_steps],
        )
        prefix_values = dict(zip(with_steps, values, strict=True))
        parts = [_parts(request, rows) for request, rows in zip(requests, ends, strict=True)]
        inner_requests = [
            replace(
                request,
                extensions=tuple(piece for piece, _ in part),
                finished=tuple(end for _, end in part),
            )
            for request, part in zip(requests, parts, strict=True)
        ]
        results = []
        for i, scored in enumerate(self._inner.score_in_model_tokens(inner_requests)):
            before = dict(zip(inside[i], prefix_values.get(i, []), strict=True))
            after = dict(zip(parts[i], scored.scores, strict=True))
            size = len(prefixes[i])
            scores = tuple(
                self._of([before[t] if t < size else after[_part(y, end, t - size)] for t in rows])
                for y, end, rows in zip(
                    requests[i].extensions, requests[i].are_finished, ends[i], strict=True
                )
            )
            extra = self._inner.tokens_of_prefixes(prompts[i], prefixes[i], inside[i])
            computed = scored.tokens_computed + (extra if before else 0)
            results.append(Scored(scores, computed, scored.tokens_reused))
        return results

    def clear_cache(self) -> None:
        """Drop what the inner scorer caches."""
        self._inner.clear_cache()

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Return the number of tokens that the inner scorer computes for all step ends."""
        ends = {end for steps in self._ends(response, cuts) for end in steps}
        return self._inner.tokens_of_prefixes(prompt, response, sorted(ends), position)

    def closing(self, position: Position) -> Ids:
        """Return the closing of the inner scorer."""
        return self._inner.closing(position)

    def _ends(self, response: Ids, cuts: Sequence[int]) -> list[list[int]]:
        """Return where the steps of each prefix end, with the end of the prefix."""
        steps = step_ends(self.chat, response, self._delimiter)
        lengths = [min(t, len(response)) for t in cuts]
        return [[*(end for end in steps if end < t), t] for t in lengths]

    def _extended_ends(self, request: ScoreRequest) -> list[list[int]]:
        """Return the step ends of a request's prefix with each extension."""
        steps = extended_step_ends(
            self.chat, request.prefix_ids, request.extensions, self._delimiter
        )
        lengths = [len(request.prefix_ids) + len(y) for y in request.extensions]
        return [[*(t for t in e if t < end), end] for e, end in zip(steps, lengths, strict=True)]

    def _of(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, values)):
            return math.nan  # a minimum could hide it
        return aggregate(values, self._how, probabilities=False)


def _parts(request: ScoreRequest, ends: Sequence[Sequence[int]]) -> list[tuple[Ids, bool]]:
    """Return the extensions up to each step end after the prefix, each text once.

    Each comes with whether it is a finished response.
    """
    size = len(request.prefix_ids)
    triples = zip(request.extensions, request.are_finished, ends, strict=True)
    return list(
        dict.fromkeys(
            _part(extension, finished, t - size)
            for extension, finished, step_ends in triples
            for t in step_ends
            if t >= size
        )
    )


def _part(extension: Ids, finished: bool, end: int) -> tuple[Ids, bool]:
    return extension[:end], finished and end == len(extension)
