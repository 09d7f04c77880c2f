"""Best-of-N over shared samples: N samples of a prompt scored once, and every smaller N of them.

The first n of N samples are those that best-of-n would have drawn (their streams are keyed by
number), so that scores of all N give the whole curve for nothing. Each point costs what drawing and
scoring its own n samples would have cost; what cannot be told apart is shared out by tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.records import Cost, Response
from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.methods.best_of_n import BestOfN, SamplesState
from orchestrator.search.problem import Candidate, Problem, competing, gap, ranked

FINE = 8  # sizes of a curve lie at most a share of 1/8 apart


@dataclass(frozen=True)
class Judged:
    """The samples of a prompt, scored; ``cost`` is that of the scores alone."""

    prompt_id: str
    drawn: SamplesState
    scored: tuple[Candidate, ...]
    cost: Cost


async def judge_samples(
    problem: Problem, policy: Policy, reward: Reward, drawn: SamplesState
) -> Judged:
    """Scores all samples of a prompt, as best-of-N does."""
    client = MeteredClient(problem, policy, reward)
    state = await BestOfN(n=len(drawn.candidates)).step(client, drawn)
    return Judged(problem.prompt_id, drawn, state.candidates, client.cost)


def best_of_first(judged: Judged, n: int) -> Response:
    """What best-of-n answers, and what it costs: n of 1..N samples drawn and scored."""
    drawn = first_samples(judged.drawn, n)
    order = ranked(competing(judged.scored[:n]))
    return Response(
        prompt_id=judged.prompt_id,
        token_ids=order[0].token_ids,
        stop="end" if order[0].finished else "length",
        score=order[0].score,
        step_scores=order[0].step_scores,
        cost=drawn.cost + _scoring(judged, n),
        margin=min(drawn.margin, gap(order, 1)),
    )


def first_samples(drawn: SamplesState, n: int) -> SamplesState:
    """The first n samples and what drawing them alone costs: the prompt is read once.

    The seconds are shared out by the tokens computed.
    """
    left = drawn.candidates[n:]
    if not left:
        return drawn
    cost = drawn.cost
    computed = cost.policy_tokens_computed - sum(map(_computed, left))
    part = replace(
        cost,
        policy_tokens_sampled=cost.policy_tokens_sampled
        - sum(len(sample.token_ids) + sample.finished for sample in left),
        policy_tokens_computed=computed,
        seconds=cost.seconds * computed / cost.policy_tokens_computed,
    )
    return replace(drawn, candidates=drawn.candidates[:n], texts=drawn.texts[:n], cost=part)


def curve_sizes(most: int) -> list[int]:
    """The n of a curve up to N = ``most``: all up to 16, then no further apart than n / 8."""
    return sorted({n for n in range(1, most + 1) if n % _step(n) == 0} | {most})


def _step(n: int) -> int:
    step = 1
    while n >= 2 * FINE * step:
        step *= 2
    return step


def _computed(sample: Candidate) -> int:
    """Every token but the one at the limit goes through the policy."""
    return len(sample.token_ids) - (not sample.finished)


def _scoring(judged: Judged, n: int) -> Cost:
    """What scoring the first n costs: equal samples once, and once what all scores share.

    A scorer that reads the prompt once for all D different samples reuses it D - 1 times. Exact
    where it has the policy's tokenizer and one model; else the samples' own tokens are shared out
    by their lengths in the policy's, and are right on average.
    """
    cost = judged.cost
    texts = [sample.token_ids for sample in judged.scored]
    all_texts, own = list(dict.fromkeys(texts)), list(dict.fromkeys(texts[:n]))
    if len(own) == len(all_texts):
        return cost
    shared = cost.reward_tokens_reused / (len(all_texts) - 1)
    apart = cost.reward_tokens_computed - shared
    closing = max(apart - sum(map(len, all_texts)), 0) / len(all_texts)
    weights = [_weight(some, closing) for some in (own, all_texts)]
    computed = shared + apart * weights[0] / (weights[1] or 1)
    return replace(
        cost,
        reward_tokens_computed=round(computed),
        reward_tokens_reused=round(shared * (len(own) - 1)),
        seconds=cost.seconds * computed / (cost.reward_tokens_computed or 1),
    )


def _weight(texts: Sequence[tuple[int, ...]], closing: float) -> float:
    return sum(map(len, texts)) + closing * len(texts)
