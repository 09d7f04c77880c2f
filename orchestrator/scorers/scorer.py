"""The base class of scorers, which score prefixes of responses and extensions of prefixes.

A kind of reward model defines how prefixes are scored; the base class derives the rest. It is
independent of search and Ray. Importing it loads neither torch nor transformers, so a scorer may be
in one file with its kind.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.choices import FinishedPosition, Position
from orchestrator.search.engines import Ids, Scored, ScoreRequest, SequenceDoesNotFit

if TYPE_CHECKING:
    from orchestrator.conversations.chat import Chat


class RewardIsNotFinite(ValueError):
    """A score is NaN or infinite. The message names some rows, ``rows`` holds all of them."""

    rows: tuple[int, ...] = ()


class Scorer(ABC):
    """A reward model that scores prefixes.

    Args:
        chat: the model's own tokenizer and template.
        position: where a prefix is scored: ``closed`` after the template's closing suffix,
            ``open`` at its last content token.
        policy_chat: tokenizer of the prefix and extension ids in requests; None is the model's.
            Prompt ids are always the model's ``reward_prompt_ids``.
        finished_position: where a finished response is scored, as in ``ScorerSpec``.
    """

    context_length: int = sys.maxsize  # most tokens that the model reads at once

    def __init__(
        self,
        chat: "Chat",
        position: Position,
        policy_chat: "Chat | None",
        finished_position: FinishedPosition = "template",
    ) -> None:
        from orchestrator.scorers.token_converter import TokenConverter  # imports transformers

        self.chat, self.position, self.finished_position = chat, position, finished_position
        self.token_converter = TokenConverter(policy_chat, chat)

    @property
    def shares_tokenizer(self) -> bool:
        """Whether policy and model have the same vocabulary."""
        return self.token_converter.same_vocabulary

    @abstractmethod
    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Return r(x, y_<t) for prefixes of N responses.

        Args:
            prompts: N prompts in the model's token ids.
            responses: N responses in the model's token ids.
            cuts: for each response, prefix lengths t in tokens; a length past the end is that of
                the full response.
            positions: where to score, all in the same pass; empty is the scorer's position.

        Returns:
            N rows of floats: the scores at all cuts for the first position, then for the next.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            SequenceDoesNotFit: a prefix is longer than the model reads.
        """

    def clear_cache(self) -> None:  # noqa: B027
        """Drop what is cached between requests; kinds with a cache override this."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Return the scores of requests in the policy's tokens; result i belongs to request i.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite. A kind that can identify them may
                return NaN for them, and the scores of the other requests.
            SequenceDoesNotFit: a response and its closing do not fit in the model's context.
        """
        groups = [self.token_converter.convert_request(request) for request in requests]
        self.check_context_length(
            [self._longest([part.request for part in group]) for group in groups]
        )
        answers = iter(
            self.score_in_model_tokens([part.request for group in groups for part in group])
        )
        results = []
        for request, group in zip(requests, groups, strict=True):
            scores = [math.nan] * len(request.extensions)
            computed = reused = 0
            for part in group:
                answer = next(answers)
                for index, score in zip(part.indices, answer.scores, strict=True):
                    scores[index] = score
                computed, reused = computed + answer.tokens_computed, reused + answer.tokens_reused
            results.append(Scored(tuple(scores), computed, reused))
        return results

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Return the scores of requests in the model's tokens, as ``score`` does.

        Every extension is scored as a separate response. Kinds that compute the prefix once for
        all extensions override this.
        """
        candidates = [
            (request.prompt_ids, request.prefix_ids + extension, self.scored_at(finished))
            for request in requests
            for extension, finished in zip(request.extensions, request.are_finished, strict=True)
        ]
        scores = [0.0] * len(candidates)
        for position in {at for _, _, at in candidates}:
            numbers = [i for i, (_, _, at) in enumerate(candidates) if at == position]
            prompts, responses, _ = zip(*(candidates[i] for i in numbers), strict=True)
            cuts = [[len(y)] for y in responses]
            values = self.prefix_scores(prompts, responses, cuts, [position])
            for i, (score,) in zip(numbers, values, strict=True):
                scores[i] = score
        tokens = [self.tokens_of_prefixes(x, y, [len(y)], at) for x, y, at in candidates]
        results, start = [], 0
        for request in requests:
            end = start + len(request.extensions)
            results.append(Scored(tuple(scores[start:end]), sum(tokens[start:end])))
            start = end
        return results

    def _longest(self, requests: Sequence[ScoreRequest]) -> int:
        """Return the length of the longest text of some requests, in the model's tokens."""
        return max(
            (
                len(request.prompt_ids)
                + len(request.prefix_ids)
                + len(extension)
                + len(self.closing(self.scored_at(finished)))
                for request in requests
                for extension, finished in zip(
                    request.extensions, request.are_finished, strict=True
                )
            ),
            default=0,
        )

    def scored_at(self, finished: bool) -> Position:
        """Return where a finished or an unfinished candidate is scored."""
        return "closed" if finished and self.finished_position == "template" else self.position

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Return the number of tokens computed to score prefixes of one response in one pass.

        ``position`` None is the scorer's position.
        """
        closing = len(self.closing(position or self.position))
        return len(prompt) + len(response) + len(cuts) * closing

    def check_context_length(self, lengths: Sequence[int]) -> None:
        """Check that texts of the given lengths in tokens fit in the model's context.

        A text that fits in the policy's tokens may be longer in the model's.

        Raises:
            SequenceDoesNotFit: some do not fit.
        """
        bad = tuple(i for i, length in enumerate(lengths) if length > self.context_length)
        if bad:
            raise SequenceDoesNotFit(
                f"a text of {max(lengths)} tokens: the reward model reads {self.context_length} at"
                " most",
                bad,
            )

    def closing(self, position: Position) -> Ids:
        """Return the tokens written after a prefix for a position; none for open scoring."""
        return self.chat.closing_ids if position == "closed" else ()


def check_finite(scores: Sequence[Sequence[float]]) -> None:
    """Raise RewardIsNotFinite, with the indices of the rows, if a score is NaN or infinite."""
    bad = [i for i, values in enumerate(scores) if not all(map(math.isfinite, values))]
    if bad:
        error = RewardIsNotFinite(
            f"rewards of {len(bad)} of {len(scores)} rows are not finite: rows {bad[:20]}"
        )
        error.rows = tuple(bad)
        raise error
