"""The two engines as a method asks them for one prompt, with what the answers cost together.

It also keeps the margin of the nearest decision. Knows nothing of methods and nothing of what
stands behind the engines.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.records import Cost, Response
from orchestrator.search.engines import (
    Continuation,
    Ids,
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
class Ledger:
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
        answer = await self.policy.sample(request)
        self.cost += Cost(
            policy_tokens_sampled=answer.tokens_sampled,
            policy_tokens_computed=answer.tokens_computed,
            policy_calls=1,
        )
        for continuation in answer.continuations:
            self.decided(continuation.margin)
        return answer.continuations

    async def top(self, prefix_ids: Ids, count: int) -> TopTokens:
        """The ``count`` likeliest next tokens of the prefix, by falling logit."""
        answer = await self.policy.top(TopRequest(self.problem.prompt_ids, prefix_ids, count))
        self.cost += Cost(policy_tokens_computed=answer.tokens_computed, policy_calls=1)
        self.decided(answer.margin)
        return answer

    async def score(self, prefix_ids: Ids, extensions: tuple[Ids, ...]) -> tuple[float, ...]:
        """Scores of the prefix with each extension; equal extensions are scored once.

        Raises:
            PromptFailed: a score is NaN or infinite.
        """
        distinct = tuple(dict.fromkeys(extensions))
        answer = await self.reward.score(
            ScoreRequest(self.problem.scored_prompt_ids, prefix_ids, distinct)
        )
        self.cost += Cost(
            reward_tokens_computed=answer.tokens_computed,
            reward_tokens_reused=answer.tokens_reused,
            reward_calls=1,
        )
        if not all(map(math.isfinite, answer.scores)):
            raise PromptFailed(NOT_A_NUMBER)
        scores = dict(zip(distinct, answer.scores, strict=True))
        return tuple(scores[extension] for extension in extensions)

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
