"""The two engines as a method asks them for one prompt, with what the answers cost together.

It also keeps the margin of the nearest decision. Knows nothing of methods and nothing of what
stands behind the engines.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.records import Cost, Response
from orchestrator.search.engines import (
    Continuation,
    Ids,
    Piece,
    Policy,
    Reward,
    SampleRequest,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.problem import (
    NOT_A_NUMBER,
    Candidate,
    Problem,
    PromptFailed,
    gap,
    ranked,
)


@dataclass
class MeteredClient:
    """Asks a policy and a reward engine about one problem.

    ``cost`` sums every answer so far: a call is one request, however an engine batches it;
    ``seconds`` is left to whoever runs the method. ``margin`` is the least one of all decisions so
    far: of draws as ``Continuation`` says, of choices the difference in score (ARGS: in value)
    between what was chosen and what was next. A run that rounds otherwise differs from this one
    only if its rounding reaches a margin.
    """

    problem: Problem
    policy: Policy
    reward: Reward
    cost: Cost = field(default_factory=Cost)
    margin: float = math.inf

    async def sample(
        self,
        prefix_ids: Ids,
        keys: tuple[int, ...],
        max_new_tokens: int,
        *,
        greedy: bool = False,
        entropy_stop: float | None = None,
        stops: tuple[str, ...] = (),
        texts: bool = False,
    ) -> tuple[Continuation, ...]:
        """One continuation of the prefix for each random stream, in the order of ``keys``."""
        request = SampleRequest(
            self.problem.prompt_ids, prefix_ids, keys, max_new_tokens, greedy, entropy_stop,
            stops, texts,
        )  # fmt: skip
        (drawn,) = await self.sample_each([request])
        return drawn

    async def sample_each(
        self, requests: Sequence[SampleRequest]
    ) -> list[tuple[Continuation, ...]]:
        """The continuations of several prefixes, all asked for at once."""
        answers = await asyncio.gather(*map(self.policy.sample, requests))
        self.cost += Cost(
            policy_tokens_sampled=sum(answer.tokens_sampled for answer in answers),
            policy_tokens_computed=sum(answer.tokens_computed for answer in answers),
            policy_calls=len(answers),
        )
        drawn = [answer.continuations for answer in answers]
        self.decided(min((one.margin for own in drawn for one in own), default=math.inf))
        return drawn

    async def top(self, prefix_ids: Ids, count: int) -> TopTokens:
        """The ``count`` likeliest next tokens of the prefix, by falling logit."""
        answer = await self.policy.top(TopRequest(self.problem.prompt_ids, prefix_ids, count))
        self.cost += Cost(policy_tokens_computed=answer.tokens_computed, policy_calls=1)
        self.decided(answer.margin)
        return answer

    async def score(self, prefix_ids: Ids, pieces: Sequence[Piece]) -> tuple[float, ...]:
        """Scores of the prefix with each piece; equal ones are scored once.

        Raises:
            PromptFailed: a score is NaN or infinite.
        """
        (scores,) = await self.score_each([(prefix_ids, pieces)])
        return scores

    async def score_each(
        self, asked: Sequence[tuple[Ids, Sequence[Piece]]]
    ) -> list[tuple[float, ...]]:
        """The scores of several prefixes, each with its pieces, all asked for at once.

        Raises:
            PromptFailed: as of ``score``.
        """
        prompt = self.problem.scored_prompt_ids
        candidates = [
            [(piece.token_ids, piece.finished) for piece in pieces] for _, pieces in asked
        ]
        requests = []
        for (prefix, _), some in zip(asked, candidates, strict=True):
            extensions, finished = zip(*dict.fromkeys(some), strict=True) if some else ((), ())
            requests.append(ScoreRequest(prompt, prefix, extensions, finished))
        answers = await asyncio.gather(*map(self.reward.score, requests))
        self.cost += Cost(
            reward_tokens_computed=sum(answer.tokens_computed for answer in answers),
            reward_tokens_reused=sum(answer.tokens_reused for answer in answers),
            reward_calls=len(answers),
        )
        results = []
        for some, request, answer in zip(candidates, requests, answers, strict=True):
            if not all(map(math.isfinite, answer.scores)):
                raise PromptFailed(NOT_A_NUMBER)
            keys = zip(request.extensions, request.finished, strict=True)
            scores = dict(zip(keys, answer.scores, strict=True))
            results.append(tuple(scores[candidate] for candidate in some))
        return results

    def select(self, candidates: Iterable[Candidate], count: int) -> tuple[Candidate, ...]:
        """The best ``count`` candidates from the best down."""
        order = ranked(candidates)
        self.decided(gap(order, count))
        return tuple(order[:count])

    def decided(self, margin: float) -> None:
        """Takes note of a decision that was so near."""
        self.margin = min(self.margin, margin)

    def response(self, candidate: Candidate) -> Response:
        """The candidate as the method's answer, with all that was spent up to now."""
        return Response(
            prompt_id=self.problem.prompt_id,
            token_ids=candidate.token_ids,
            stop="end" if candidate.finished else "length",
            score=candidate.score if candidate.step_scores else None,
            step_scores=candidate.step_scores,
            cost=self.cost,
            margin=self.margin,
        )
