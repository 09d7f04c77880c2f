"""The metered client: sends one prompt's requests to the engines and sums up their cost.

It also tracks the smallest margin of a decision. Independent of methods and of the engines'
backends.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.records import Cost, Response
from orchestrator.search.engines import (
    Continuation,
    Extension,
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
    ranked,
    selection_margin,
)


@dataclass
class MeteredClient:
    """Sends requests for one problem to a policy and a reward engine.

    ``cost`` sums all answers so far: a call is one request, however an engine batches it. It leaves
    ``seconds`` to the runner. ``margin`` is the smallest of all decisions so far: of draws as in
    ``Continuation``, of selections the smallest score difference (ARGS: in value) of consecutive
    candidates, up to the first one not selected. Another run's rounding changes a response only if
    it exceeds a margin.
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
        """Return one continuation of the prefix for each random stream in ``keys``."""
        request = SampleRequest(
            self.problem.prompt_ids, prefix_ids, keys, max_new_tokens, greedy, entropy_stop,
            stops, texts,
        )  # fmt: skip
        (continuations,) = await self.sample_each([request])
        return continuations

    async def sample_each(
        self, requests: Sequence[SampleRequest]
    ) -> list[tuple[Continuation, ...]]:
        """Return the continuations of several prefixes, requested at once."""
        answers = await asyncio.gather(*map(self.policy.sample, requests))
        self.cost += Cost(
            policy_tokens_sampled=sum(answer.tokens_sampled for answer in answers),
            policy_tokens_computed=sum(answer.tokens_computed for answer in answers),
            policy_calls=len(answers),
        )
        sampled = [answer.continuations for answer in answers]
        self.decided(min((one.margin for row in sampled for one in row), default=math.inf))
        return sampled

    async def top_next_tokens(self, prefix_ids: Ids, count: int) -> TopTokens:
        """Return the ``count`` likeliest next tokens of the prefix, by falling logit."""
        answer = await self.policy.top_next_tokens(
            TopRequest(self.problem.prompt_ids, prefix_ids, count)
        )
        self.cost += Cost(policy_tokens_computed=answer.tokens_computed, policy_calls=1)
        self.decided(answer.margin)
        return answer

    async def score(self, prefix_ids: Ids, extensions: Sequence[Extension]) -> tuple[float, ...]:
        """Return the score of the prefix with each extension; equal ones are scored once.

        Raises:
            PromptFailed: a score is NaN or infinite.
        """
        (scores,) = await self.score_each([(prefix_ids, extensions)])
        return scores

    async def score_each(
        self, prefixes: Sequence[tuple[Ids, Sequence[Extension]]]
    ) -> list[tuple[float, ...]]:
        """Return the scores of several prefixes with their extensions, requested at once.

        Raises:
            PromptFailed: as ``score``.
        """
        prompt = self.problem.scored_prompt_ids
        keys_of = [
            [(extension.token_ids, extension.finished) for extension in extensions]
            for _, extensions in prefixes
        ]
        requests = []
        for (prefix, _), keys in zip(prefixes, keys_of, strict=True):
            extensions, finished = zip(*dict.fromkeys(keys), strict=True) if keys else ((), ())
            requests.append(ScoreRequest(prompt, prefix, extensions, finished))
        answers = await asyncio.gather(*map(self.reward.score, requests))
        self.cost += Cost(
            reward_tokens_computed=sum(answer.tokens_computed for answer in answers),
            reward_tokens_reused=sum(answer.tokens_reused for answer in answers),
            reward_calls=len(answers),
        )
        results = []
        for keys, request, answer in zip(keys_of, requests, answers, strict=True):
            if not all(map(math.isfinite, answer.scores)):
                raise PromptFailed(NOT_A_NUMBER)
            unique_keys = zip(request.extensions, request.finished, strict=True)
            scores = dict(zip(unique_keys, answer.scores, strict=True))
            results.append(tuple(scores[key] for key in keys))
        return results

    def select(self, candidates: Iterable[Candidate], count: int) -> tuple[Candidate, ...]:
        """Return the best ``count`` candidates, best first."""
        order = ranked(candidates)
        self.decided(selection_margin(order, count))
        return tuple(order[:count])

    def decided(self, margin: float) -> None:
        """Record the margin of a decision."""
        self.margin = min(self.margin, margin)

    def response(self, candidate: Candidate) -> Response:
        """Return a candidate as the response, with the cost so far."""
        return Response(
            prompt_id=self.problem.prompt_id,
            token_ids=candidate.token_ids,
            stop="end" if candidate.finished else "length",
            score=candidate.score if candidate.step_scores else None,
            step_scores=candidate.step_scores,
            cost=self.cost,
            margin=self.margin,
        )
