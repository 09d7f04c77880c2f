"""Search methods against hand-computed cases and step-by-step recomputation in tabular worlds."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import pytest
from pydantic import ValidationError
from support.method_examples import examples
from support.random_worlds import random_policy, random_reward

from orchestrator.randomness import stream_key
from orchestrator.records import Cost, Response
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.method import METHODS, AnySearchMethod, SearchMethod
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch, TokenBeamSearch
from orchestrator.search.methods.best_of_n import BestOfN, SamplesState
from orchestrator.search.methods.cards import Cards, acceptance, threshold
from orchestrator.search.methods.general import GeneralSearch
from orchestrator.search.methods.policy_alone import Base, Greedy
from orchestrator.search.methods.vote import MajorityVote, WeightedBestOfN
from orchestrator.search.problem import (
    Candidate,
    Problem,
    PromptFailed,
    competing,
    ranked,
    selection_margin,
)
from orchestrator.search.tabular import TabularPolicy, TabularReward

PROBLEM = Problem("p0", (7, 8), seed=3, max_new_tokens=6)
EXAMPLES = examples()


@dataclass
class Recorder:
    """Both engines, with every request and answer written down as they pass."""

    policy: TabularPolicy
    reward: TabularReward
    samples: list[tuple[SampleRequest, Sampled]] = field(default_factory=list)
    tops: list[TopRequest] = field(default_factory=list)
    scores: list[ScoreRequest] = field(default_factory=list)

    async def sample(self, request: SampleRequest) -> Sampled:
        answer = await self.policy.sample(request)
        self.samples.append((request, answer))
        return answer

    async def top_next_tokens(self, request: TopRequest) -> TopTokens:
        self.tops.append(request)
        return await self.policy.top_next_tokens(request)

    async def score(self, request: ScoreRequest) -> Scored:
        self.scores.append(request)
        return await self.reward.score(request)


def recorder(seed: int, vocabulary: int = 4) -> Recorder:
    return Recorder(random_policy(seed, vocabulary), random_reward(seed))


def run(engines: Recorder, method: AnySearchMethod, problem: Problem = PROBLEM) -> Response:
    return asyncio.run(method.run(problem, engines, engines))


def draw(policy: TabularPolicy, key: int, limit: int, prefix: Ids = ()) -> tuple[Ids, bool]:
    request = SampleRequest(PROBLEM.prompt_ids, prefix, (key,), limit)
    (continuation,) = asyncio.run(policy.sample(request)).continuations
    return continuation.token_ids, continuation.stop == "end"


def test_equal_scores_go_to_the_earlier_candidate() -> None:
    candidates = [Candidate((i,), score=score) for i, score in enumerate((1.0, 2.0, 2.0, 1.0))]
    assert [candidate.token_ids[0] for candidate in ranked(candidates)] == [1, 2, 0, 3]


def test_only_finished_candidates_compete_while_there_are_any() -> None:
    long, first, second = (
        Candidate((1,), False, 9.0),
        Candidate((2,), True, 1.0),
        Candidate((3,), True, 1.0),
    )
    assert competing([long, first, second]) == [first, second]
    assert competing([Candidate((4,), False, 1.0), long])[1] is long


def test_the_gap_of_a_choice_is_the_least_between_neighbours_of_other_texts() -> None:
    order = [Candidate((i,), score=score) for i, score in enumerate((5.0, 4.5, 2.0, 1.9))]
    assert [selection_margin(order, count) for count in (1, 2, 3, 4)] == pytest.approx(
        [0.5, 0.5, 0.1, 0.1]
    )
    assert selection_margin(order[:1], 1) == math.inf  # nothing to choose from
    twice = [order[0], order[0], order[2]]
    assert selection_margin(twice, 1) == math.inf  # whichever it is, it is the same
    assert selection_margin(twice, 2) == 3.0


def test_base_is_the_policys_sample_of_its_own_stream() -> None:
    engines = recorder(0)
    response = run(engines, Base())
    drawn, finished = draw(engines.policy, stream_key(3, "p0", "base"), 6)
    assert (response.token_ids, response.stop) == (drawn, "end" if finished else "length")
    assert response.score is None and response.step_scores == () and not engines.scores


def test_greedy_follows_the_likeliest_token_to_the_end() -> None:
    tables = {(): [0.0, 2.0, 1.0], (1,): [3.0, 2.0, 1.0], (1, 0): [0.0, 0.5, 1.0]}
    policy = TabularPolicy(lambda x, y: tables[y], end_id=2)
    response = run(Recorder(policy, random_reward(0)), Greedy())
    assert (response.token_ids, response.stop) == ((1, 0), "end")


def test_votes_over_shared_samples_by_hand() -> None:
    """Three samples say 7 and two 8; one 8 scores so high that it outweighs them."""
    samples = tuple(Candidate((i,), finished=True) for i in range(5))
    texts = ("it is 7", "7", "so 7.0", "4 + 4 = 8", "8")
    drawn = SamplesState(samples, cost=Cost(policy_calls=1), texts=texts)
    scores = {0: -2.0, 1: -3.0, 2: -2.5, 3: 4.0, 4: 1.0}
    engines = Recorder(random_policy(1, 5), TabularReward(lambda x, y: scores[y[0]]))

    def voted(method: SearchMethod[SamplesState], state: SamplesState) -> Response:
        return asyncio.run(method.run(PROBLEM, engines, engines, resume=state))

    majority = MajorityVote(n=5, answers="last_number")
    weighted = WeightedBestOfN(n=5, answers="last_number")
    most = voted(majority, drawn)
    assert most.token_ids == (0,) and most.score is None and not engines.scores
    assert most.cost == drawn.cost and most.margin == math.inf
    weighed = voted(weighted, drawn)
    assert weighed.token_ids == (3,) and weighed.score == 4.0
    assert weighed.cost.reward_calls == 1
    lead = sum(1 / (1 + math.exp(-scores[i])) * (1 if i > 2 else -1) for i in range(5))
    assert weighed.margin == pytest.approx(lead)
    cut = tuple(Candidate(one.token_ids, one.token_ids == (4,)) for one in samples)
    assert voted(majority, SamplesState(cut, texts=texts)).token_ids == (
        4,
    )  # the only finished one


def test_probabilities_are_weights_unchanged_and_other_scores_are_refused() -> None:
    """0.1 + 0.2 for 7 is less than 0.35 for 8; by sigmoids it is more."""
    samples = tuple(Candidate((i,), finished=True) for i in range(3))
    state = SamplesState(samples, texts=("7", "8", "7"))

    def winner(weights: Literal["sigmoid", "score"], *scores: float) -> int:
        engines = Recorder(random_policy(1, 5), TabularReward(lambda x, y: scores[y[0]]))
        method = WeightedBestOfN(n=3, answers="last_number", weights=weights)
        return asyncio.run(method.run(PROBLEM, engines, engines, resume=state)).token_ids[0]

    assert winner("score", 0.1, 0.35, 0.2) == 1
    assert winner("sigmoid", 0.1, 0.35, 0.2) == 2
    for wrong in (1.5, -0.1):
        with pytest.raises(PromptFailed, match=r"not in \[0, 1\]; valid: sigmoid"):
            winner("score", 0.1, wrong, 0.2)


def test_a_vote_by_mathematics_counts_values_and_not_spellings() -> None:
    samples = tuple(Candidate((i,), finished=True) for i in range(5))
    texts = (r"\boxed{7}", r"\boxed{\frac{1}{2}}", "The answer is 7.", r"$x = 0.5$", r"\boxed{.50}")
    state = SamplesState(samples, texts=texts)
    engines = recorder(0)
    for answers, expected in (("math", 1), ("boxed", 0)):
        vote = MajorityVote(n=5, answers=answers)  # type: ignore[arg-type]
        response = asyncio.run(vote.run(PROBLEM, engines, engines, resume=state))
        assert response.token_ids == (expected,)


def test_a_vote_needs_a_known_extraction_and_the_samples_texts() -> None:
    engines = recorder(0)
    with pytest.raises(ValidationError, match="'gsm8k', 'last_number', 'boxed' or 'math'"):
        MajorityVote(n=3, answers="nothing")  # type: ignore[arg-type]

    class Mute(Recorder):
        async def sample(self, request: SampleRequest) -> Sampled:
            return await super().sample(replace(request, texts=False))

    with pytest.raises(ValueError, match="this policy engine returned none"):
        run(Mute(engines.policy, engines.reward), MajorityVote(n=3))


@pytest.mark.parametrize("seed", range(8))
def test_best_of_n_is_the_maximum_over_samples_drawn_alone(seed: int) -> None:
    engines = recorder(seed)
    response = run(engines, BestOfN(n=7))
    drawn = [draw(engines.policy, stream_key(3, "p0", "sample", i), 6) for i in range(7)]
    drawn = [one for one in drawn if one[1]] or drawn
    values = [engines.reward.value((7, 8), tokens) for tokens, _ in drawn]
    expected, finished = drawn[values.index(max(values))]
    assert response.token_ids == expected and response.score == max(values)
    assert response.stop == ("end" if finished else "length")


def test_best_of_n_with_equal_rewards_is_the_first_sample() -> None:
    engines = Recorder(random_policy(1, 5), TabularReward(lambda x, y: 0.25))
    drawn = [draw(engines.policy, stream_key(3, "p0", "sample", i), 6) for i in range(6)]
    first = next((tokens for tokens, finished in drawn if finished), drawn[0][0])
    assert run(engines, BestOfN(n=6)).token_ids == first


def test_shared_samples_are_drawn_once_and_answer_as_if_drawn_for_each_scorer() -> None:
    shared = recorder(2)
    bon = BestOfN(n=6)
    drawn = asyncio.run(bon.initial(PROBLEM, shared, shared))
    assert not shared.scores
    for scorer in range(3):
        engines = Recorder(shared.policy, random_reward(100 + scorer))
        alone = run(engines, BestOfN(n=6))
        assert asyncio.run(bon.run(PROBLEM, shared, engines, resume=drawn)) == alone
    assert len(shared.samples) == 1


@pytest.mark.parametrize("seed", range(10))
def test_args_takes_the_best_logit_plus_weighted_reward_at_every_step(seed: int) -> None:
    engines = recorder(seed, 6)
    response = run(engines, Args(weight=1.5, k=4))
    path: Ids = ()
    kept: list[float] = []
    stop = "length"
    while len(path) < 6 and stop == "length":
        logits = list(engines.policy.logits((7, 8), path))
        likeliest = sorted(range(6), key=lambda v: -logits[v])[:4]
        grown = {v: path if v == 5 else (*path, v) for v in likeliest}
        rewards = {v: engines.reward.value((7, 8), grown[v]) for v in likeliest}
        best = max(likeliest, key=lambda v: logits[v] + 1.5 * rewards[v])
        path, stop = grown[best], "end" if best == 5 else "length"
        kept.append(rewards[best])
    assert (response.token_ids, response.stop) == (path, stop)
    assert response.step_scores == tuple(kept) and response.score == kept[-1]


def test_args_ends_where_the_response_as_it_is_beats_every_longer_one() -> None:
    policy = TabularPolicy(lambda x, y: [1.0, 0.5, 0.0], end_id=2)
    reward = TabularReward(lambda x, y: 5.0 - 3.0 * abs(len(y) - 1))  # 2, 5, 2 at lengths 0, 1, 2
    response = run(Recorder(policy, reward), Args(weight=1.0, k=3))
    # Step 1: a 1 + 5 beats end 0 + 2. Step 2: end 0 + 5 beats a 1 + 2.
    assert (response.token_ids, response.stop, response.score) == ((0,), "end", 5.0)


def test_args_never_ends_when_the_end_token_is_not_among_the_candidates() -> None:
    policy = TabularPolicy(lambda x, y: [1.0, 0.5, 0.0], end_id=2)
    reward = TabularReward(lambda x, y: -float(len(y)))
    response = run(Recorder(policy, reward), Args(weight=1.0, k=2))
    assert (len(response.token_ids), response.stop) == (6, "length")


def test_args_gives_equal_values_to_the_likelier_token() -> None:
    policy = TabularPolicy(lambda x, y: [0.5, 1.0, -9.0], end_id=2)
    reward = TabularReward(lambda x, y: 0.5 * y.count(0))  # 0.5 + 0.5 for token 0, 1 + 0 for 1
    response = run(Recorder(policy, reward), Args(weight=1.0, k=3))
    assert response.token_ids == (1,) * 6


def test_args_without_weight_or_with_equal_rewards_is_greedy() -> None:
    engines = recorder(4)
    expected = run(engines, Greedy()).token_ids
    assert run(engines, Args(weight=0.0, k=4)).token_ids == expected
    flat = Recorder(engines.policy, TabularReward(lambda x, y: 1.0))
    assert run(flat, Args(weight=1.5, k=4)).token_ids == expected


def by_length(*values: float) -> TabularReward:
    return TabularReward(lambda x, y: values[len(y)])


def test_a_finished_beam_stays_and_wins_over_worse_continuations() -> None:
    policy = TabularPolicy(lambda x, y: [0.0, 0.0], end_id=1)
    engines = Recorder(policy, by_length(0.0, 3.0, 1.0, 2.0, 0.0, 0.0, 0.0))
    response = run(engines, TokenBeamSearch(beams=2, candidates=30))
    # "a" (3) beats the end at once (0); then "a" finished (3) beats "a a" (1).
    assert (response.token_ids, response.stop, response.score) == ((0,), "end", 3.0)
    assert response.step_scores == (3.0, 3.0)


def test_beams_that_never_finish_give_the_best_unfinished() -> None:
    policy = TabularPolicy(lambda x, y: [0.0, 0.0, -50.0], end_id=2)
    engines = Recorder(policy, TabularReward(lambda x, y: float(sum(y))))
    response = run(engines, ChunkBeamSearch(beams=2, candidates=40, chunk=4))
    assert (response.token_ids, response.stop, response.score) == ((1,) * 6, "length", 6.0)
    assert response.step_scores == (4.0, 6.0)  # a chunk of four, then the two tokens left


def test_the_first_expansion_draws_all_candidates_from_one_prefix() -> None:
    engines = recorder(5)
    run(engines, ChunkBeamSearch(beams=3, candidates=4, chunk=2))
    first, _ = engines.samples[0]
    expected = [stream_key(3, "p0", "cbs", 0, beam, k) for beam, k in product(range(3), range(4))]
    assert first.keys == tuple(expected) and first.prefix_ids == ()
    prefixes = [request.prefix_ids for request, _ in engines.samples[1:]]
    assert all(len(request.keys) % 4 == 0 for request, _ in engines.samples[1:]) and prefixes


def test_beams_of_one_token_are_token_level_search() -> None:
    engines = recorder(0)
    run(engines, TokenBeamSearch(beams=3, candidates=4))
    assert engines.samples[0][0].keys[0] == stream_key(3, "p0", "tbs", 0, 0, 0)
    assert {request.max_new_tokens for request, _ in engines.samples} == {1}


@pytest.mark.parametrize("seed", range(5))
def test_response_granularity_is_best_of_n_among_the_finished(seed: int) -> None:
    engines = recorder(seed)
    response = run(engines, GeneralSearch(granularity="response", sequences=8, candidates=1))
    keys = [stream_key(3, "p0", "general", 0, index, 0) for index in range(8)]
    drawn = [draw(engines.policy, key, 6) for key in keys]
    compete = [y for y, finished in drawn if finished] or [y for y, _ in drawn]
    assert response.token_ids == max(compete, key=lambda y: engines.reward.value((7, 8), y))


@pytest.mark.parametrize(("granularity", "length"), [("token", 1), ("chunk", 3), ("response", 6)])
def test_granularity_decides_how_much_is_drawn_at_a_step(granularity: Any, length: int) -> None:
    engines = recorder(6)
    run(engines, GeneralSearch(granularity=granularity, sequences=2, candidates=2, chunk=3))
    assert engines.samples[0][0].max_new_tokens == length


def test_the_threshold_rises_linearly_and_acceptance_falls_exponentially() -> None:
    assert [threshold(n, 10, 1.0, 3.0) for n in (0, 5, 10)] == [1.0, 2.0, 3.0]
    assert acceptance(1.0, 2.0, 0.5) == pytest.approx(math.exp(-2.0))
    assert acceptance(2.0, 2.0, 0.5) == acceptance(1e300, -1e300, 1e-9) == 1.0


def test_cards_asks_for_the_threshold_of_the_grown_response() -> None:
    """Rewards just at the threshold are taken, just below it (beta near 0) refused."""
    policy = TabularPolicy(lambda x, y: [0.0, -50.0], end_id=1)
    parameters = Cards(
        target_reward=4.0,
        beta=1e-6,
        alpha=0.5,
        segment_cap=3,
        max_rejections=5,
        entropy_threshold=7.0,
    )
    # r(x, "") = 2, so r_0 = 0.5 * 2 + 0.5 * 4 = 3, and 3.5 is asked at 3 of 6 tokens, 4 at 6.
    for short, attempts in ((0.0, 1), (0.001, 5)):
        values = (2.0, 0.0, 0.0, 3.5 - short, 0.0, 0.0, 4.0 - short)
        engines = Recorder(policy, by_length(*values))
        response = run(engines, parameters)
        assert len(engines.samples) == 2 * attempts
        assert response.step_scores == pytest.approx((3.5 - short, 4.0 - short))


def test_cards_takes_the_best_segment_after_its_rejections() -> None:
    engines = recorder(7)
    cap = Cards(
        target_reward=1e9,
        beta=1.0,
        alpha=1.0,
        segment_cap=6,
        max_rejections=9,
        entropy_threshold=7.0,
    )
    response = run(engines, cap)
    drawn = [draw(engines.policy, stream_key(3, "p0", "cards", 0, i), 6)[0] for i in range(9)]
    values = [engines.reward.value((7, 8), tokens) for tokens in drawn]
    assert len(set(values)) > 1
    assert response.token_ids == drawn[values.index(max(values))]


def test_a_cards_segment_ends_before_an_uncertain_token() -> None:
    sure, torn = [0.0, -40.0, -40.0], [0.0, 0.0, -40.0]  # entropies of 0 and ln 2
    policy = TabularPolicy(lambda x, y: torn if len(y) % 3 == 2 else sure, end_id=2)
    engines = Recorder(policy, random_reward(0))
    parameters = Cards(
        target_reward=-1e9,
        beta=1.0,
        alpha=1.0,
        entropy_threshold=math.log(2) - 1e-6,
        segment_cap=64,
        max_rejections=20,
    )
    run(engines, parameters)
    assert [len(request.prefix_ids) for request, _ in engines.samples] == [0, 2, 5]


def test_cards_that_accepts_all_has_the_policys_distribution() -> None:
    engines = Recorder(random_policy(11, 3, spread=0.7), random_reward(11))
    parameters = Cards(
        target_reward=-1e9,
        beta=1.0,
        alpha=1.0,
        entropy_threshold=0.9,
        segment_cap=2,
        max_rejections=20,
    )
    count = 4000
    seen: Counter[tuple[Ids, str]] = Counter()
    for index in range(count):
        response = run(engines, parameters, Problem(f"p{index}", (7, 8), 0, 3))
        seen[response.token_ids, response.stop] += 1
    exact: dict[tuple[Ids, str], float] = {}
    for length in range(4):
        for path in product(range(2), repeat=length):
            steps = [engines.policy.probabilities((7, 8), path[:i]) for i in range(length)]
            reached = math.prod(float(p[v]) for p, v in zip(steps, path, strict=True))
            ends = float(engines.policy.probabilities((7, 8), path)[2]) if length < 3 else 1.0
            exact[path, "end" if length < 3 else "length"] = reached * ends
    assert sum(exact.values()) == pytest.approx(1.0)
    distance = 0.5 * sum(abs(seen[key] / count - exact[key]) for key in exact)
    assert distance < 0.03  # sampling alone gives about 0.015 here


def test_cards_accepts_at_the_rate_of_its_formula_whatever_was_drawn() -> None:
    policy = TabularPolicy(lambda x, y: [0.0, 0.0, -50.0], end_id=2)
    engines = Recorder(policy, TabularReward(lambda x, y: float(sum(y))))
    parameters = Cards(
        target_reward=1.0,
        beta=1.0,
        alpha=1.0,
        segment_cap=1,
        max_rejections=10_000,
        entropy_threshold=7.0,
    )
    problems = [Problem(f"p{index}", (7,), 0, 1) for index in range(2000)]
    zeros = sum(run(engines, parameters, p).token_ids == (0,) for p in problems)
    # Both tokens are as likely; 1 has the reward asked for, 0 is taken with probability exp(-1).
    assert zeros / 2000 == pytest.approx(math.exp(-1) / (1 + math.exp(-1)), abs=0.03)
    assert 2000 / len(engines.samples) == pytest.approx((1 + math.exp(-1)) / 2, abs=0.03)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_the_cost_is_what_an_observer_of_the_engines_counts(name: str, seed: int) -> None:
    engines = recorder(seed, 5)
    response = run(engines, EXAMPLES[name])
    drawn = [(request, piece) for request, s in engines.samples for piece in s.continuations]
    steps = [len(piece.token_ids) + (piece.stop == "end") for _, piece in drawn]
    put_through = [len(p.token_ids) - (p.stop in ("length", "stop")) for _, p in drawn]
    prefixes = [2 + len(r.prefix_ids) for r in [r for r, _ in engines.samples] + engines.tops]
    scored = [2 + len(r.prefix_ids) + sum(map(len, r.extensions)) for r in engines.scores]
    assert response.cost == Cost(
        policy_tokens_sampled=sum(steps),
        policy_tokens_computed=sum(prefixes) + sum(put_through),
        reward_tokens_computed=sum(scored),
        policy_calls=len(prefixes),
        reward_calls=len(scored),
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_score_of_its_own_response(name: str) -> None:
    for seed in range(4):
        engines = recorder(seed, 5)
        response = run(engines, EXAMPLES[name])
        assert len(response.token_ids) <= 6
        if response.stop == "length":
            assert len(response.token_ids) == 6
        if METHODS[name].needs_scorer:
            assert response.score == engines.reward.value((7, 8), response.token_ids)
            assert response.step_scores[-1] == response.score


def test_equal_extensions_are_scored_once() -> None:
    engines = recorder(1, 2)
    run(engines, TokenBeamSearch(beams=4, candidates=8))
    assert all(len(set(r.extensions)) == len(r.extensions) <= 2 for r in engines.scores)


def test_acceptance_without_softness_is_the_threshold_itself() -> None:
    assert [acceptance(value, 1.0, 0.0) for value in (0.999, 1.0, 2.0)] == [0.0, 1.0, 1.0]
    assert acceptance(0.5, 1.0, 1e-6) == pytest.approx(0.0)
