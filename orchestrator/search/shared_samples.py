"""Best-of-N for every N from shared samples that are scored once.

The first n of N samples are those that best-of-n would draw (their streams are keyed by number), so
the scores of all N determine the full curve. Each point costs what drawing and scoring only its n
samples would cost; costs that are only measured together are divided by tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.records import Cost, Response
from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.methods.best_of_n import BestOfN, SamplesState
from orchestrator.search.problem import Candidate, Problem, competing, ranked, selection_margin

RESOLUTION = 8  # consecutive sizes of a curve differ by at most n / 8


@dataclass(frozen=True)
class ScoredSamples:
    """The scored samples of a prompt; ``cost`` is that of scoring only."""

    prompt_id: str
    drawn: SamplesState
    scored: tuple[Candidate, ...]
    cost: Cost


async def score_samples(
    problem: Problem, policy: Policy, reward: Reward, drawn: SamplesState
) -> ScoredSamples:
    """Score all samples of a prompt, as best-of-N does."""
    client = MeteredClient(problem, policy, reward)
    state = await BestOfN(n=len(drawn.candidates)).step(client, drawn)
    return ScoredSamples(problem.prompt_id, drawn, state.candidates, client.cost)


def best_of_first(samples: ScoredSamples, n: int) -> Response:
    """Return the response of best-of-n for n in 1..N, with the cost of its n samples."""
    drawn = first_samples(samples.drawn, n)
    order = ranked(competing(samples.scored[:n]))
    return Response(
        prompt_id=samples.prompt_id,
        token_ids=order[0].token_ids,
        stop="end" if order[0].finished else "length",
        score=order[0].score,
        step_scores=order[0].step_scores,
        cost=drawn.cost + _scoring_cost(samples, n),
        margin=min(drawn.margin, selection_margin(order, 1)),
    )


def first_samples(drawn: SamplesState, n: int) -> SamplesState:
    """Return the first n samples with the cost of drawing only these; the prompt counts once.

    Seconds are divided by the tokens computed.
    """
    dropped = drawn.candidates[n:]
    if not dropped:
        return drawn
    cost = drawn.cost
    computed = cost.policy_tokens_computed - sum(map(_computed, dropped))
    part = replace(
        cost,
        policy_tokens_sampled=cost.policy_tokens_sampled
        - sum(len(sample.token_ids) + sample.finished for sample in dropped),
        policy_tokens_computed=computed,
        seconds=cost.seconds * computed / cost.policy_tokens_computed,
    )
    return replace(drawn, candidates=drawn.candidates[:n], texts=drawn.texts[:n], cost=part)


def curve_sizes(max_n: int) -> list[int]:
    """Return the n of a curve up to ``max_n``: all up to 16, then at most n / 8 apart."""
    return sorted({n for n in range(1, max_n + 1) if n % _step(n) == 0} | {max_n})


def _step(n: int) -> int:
    step = 1
    while n >= 2 * RESOLUTION * step:
        step *= 2
    return step


def _computed(sample: Candidate) -> int:
    """Return the tokens that go through the policy: all but one at the length limit."""
    return len(sample.token_ids) - (not sample.finished)


def _scoring_cost(samples: ScoredSamples, n: int) -> Cost:
    """Return the cost of scoring the first n samples: equal samples and the shared prompt once.

    A scorer that computes the prompt once for D different samples reuses it D - 1 times. Exact if
    the scorer has the policy's tokenizer and one model; else the samples' tokens are divided by
    their lengths in the policy's tokens, which is right on average.
    """
    cost = samples.cost
    sequences = [sample.token_ids for sample in samples.scored]
    unique, first = list(dict.fromkeys(sequences)), list(dict.fromkeys(sequences[:n]))
    if len(first) == len(unique):
        return cost
    shared = cost.reward_tokens_reused / (len(unique) - 1)
    unshared = cost.reward_tokens_computed - shared
    closing = max(unshared - sum(map(len, unique)), 0) / len(unique)
    weights = [_weight(part, closing) for part in (first, unique)]
    computed = shared + unshared * weights[0] / (weights[1] or 1)
    return replace(
        cost,
        reward_tokens_computed=round(computed),
        reward_tokens_reused=round(shared * (len(first) - 1)),
        seconds=cost.seconds * computed / (cost.reward_tokens_computed or 1),
    )


def _weight(sequences: Sequence[tuple[int, ...]], closing: float) -> float:
    return sum(map(len, sequences)) + closing * len(sequences)
