"""Any scorer's values at the ends of steps, aggregated to a prefix's score (design, section 2).

A reward model that knows nothing of steps is asked r(x, y_<t) where each step of the prefix ends,
and at the prefix's own end; their minimum, say, is a solution's weakest moment. Kinds that have
rewards of steps of their own aggregate those themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.choices import Aggregation, Position
from orchestrator.rewards.aggregation import aggregate
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.steps import (
    BLANK_LINE,
    check_delimiter,
    extended_step_ends,
    step_ends,
)
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class AggregatedScorer(Scorer):
    """A scorer whose scores are aggregates of another's over the steps of a prefix.

    The inner scorer's rewards are unbounded: a product is that of their sigmoids. An incomplete
    last step counts, an empty prefix is one step. For a request the inner scorer is asked once for
    the steps of the prefix, and once for all that end in an extension.

    Args:
        inner: the scorer that is asked, in one pass a response where it has one.
        aggregation: of its values.
        step_delimiter: text that ends a step.

    Raises:
        ValueError: the inner scorer's tokenizer does not keep the delimiter.
    """

    def __init__(
        self, inner: Scorer, aggregation: Aggregation, step_delimiter: str = BLANK_LINE
    ) -> None:
        super().__init__(inner.chat, inner.position, None, inner.finished)
        check_delimiter(self.chat, step_delimiter)
        self.policy_tokens = inner.policy_tokens
        self.context = inner.context
        self._inner, self._how, self._delimiter = inner, aggregation, step_delimiter

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; the inner one is asked once, for all step ends of a response."""
        wanted = [self._ends(y, row) for y, row in zip(responses, cuts, strict=True)]
        asked = [sorted({t for ends in row for t in ends}) for row in wanted]
        values = self._inner.prefix_scores(prompts, responses, asked, positions)
        found = []
        for row, own, scores in zip(wanted, asked, values, strict=True):
            place = {t: i for i, t in enumerate(own)}
            starts = range(0, len(scores), max(len(own), 1))  # one block a position
            found.append([self._of([scores[s + place[t]] for t in e]) for s in starts for e in row])
        return found

    def score_own(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's."""
        ends = [self._extended_ends(request) for request in requests]
        inside = [
            sorted({t for own in rows for t in own if t < len(request.prefix_ids)})
            for request, rows in zip(requests, ends, strict=True)
        ]
        prompts, prefixes = [r.prompt_ids for r in requests], [r.prefix_ids for r in requests]
        some = [i for i, own in enumerate(inside) if own]
        values = self._inner.prefix_scores(
            [prompts[i] for i in some], [prefixes[i] for i in some], [inside[i] for i in some]
        )
        known = dict(zip(some, values, strict=True))
        parts = [_parts(request, rows) for request, rows in zip(requests, ends, strict=True)]
        asked = [
            replace(
                request,
                extensions=tuple(piece for piece, _ in part),
                finished=tuple(end for _, end in part),
            )
            for request, part in zip(requests, parts, strict=True)
        ]
        found = []
        for i, scored in enumerate(self._inner.score_own(asked)):
            before = dict(zip(inside[i], known.get(i, []), strict=True))
            behind = dict(zip(parts[i], scored.scores, strict=True))
            size = len(prefixes[i])
            scores = tuple(
                self._of([before[t] if t < size else behind[_part(y, end, t - size)] for t in rows])
                for y, end, rows in zip(
                    requests[i].extensions, requests[i].are_finished, ends[i], strict=True
                )
            )
            extra = self._inner.tokens_of_prefixes(prompts[i], prefixes[i], inside[i])
            computed = scored.tokens_computed + (extra if before else 0)
            found.append(Scored(scores, computed, scored.tokens_reused))
        return found

    def forget(self) -> None:
        """As the inner scorer."""
        self._inner.forget()

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """What the inner scorer computes for all step ends."""
        ends = {end for own in self._ends(response, cuts) for end in own}
        return self._inner.tokens_of_prefixes(prompt, response, sorted(ends), position)

    def closing(self, position: Position) -> Ids:
        """As the inner scorer's."""
        return self._inner.closing(position)

    def _ends(self, response: Ids, cuts: Sequence[int]) -> list[list[int]]:
        """Where the steps of each prefix end, the prefix's own end included."""
        steps = step_ends(self.chat, response, self._delimiter)
        whole = [min(t, len(response)) for t in cuts]
        return [[*(end for end in steps if end < t), t] for t in whole]

    def _extended_ends(self, request: ScoreRequest) -> list[list[int]]:
        """The same of a request's prefix with each extension."""
        steps = extended_step_ends(
            self.chat, request.prefix_ids, request.extensions, self._delimiter
        )
        whole = [len(request.prefix_ids) + len(own) for own in request.extensions]
        return [[*(t for t in e if t < end), end] for e, end in zip(steps, whole, strict=True)]

    def _of(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, values)):
            return math.nan  # a minimum may hide it
        return aggregate(values, self._how, probabilities=False)


def _parts(request: ScoreRequest, ends: Sequence[Sequence[int]]) -> list[tuple[Ids, bool]]:
    """What the extensions hold up to each step end behind the prefix, each text once.

    And whether it is a finished response.
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
