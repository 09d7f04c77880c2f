"""Methods over steps and sentences, stochastic ARGS, and margins, by hand and written out."""

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest
from support.random_worlds import random_policy, random_reward
from test_search_methods import Recorder, recorder, run

from orchestrator.randomness import stream_key, uniforms
from orchestrator.search.engines import Ids, SampleRequest
from orchestrator.search.methods.args import Args, StochasticArgs, draw_softmax
from orchestrator.search.methods.beam import ChunkBeamSearch, StepBeamSearch
from orchestrator.search.methods.cards import Cards
from orchestrator.search.methods.dvts import DVTS
from orchestrator.search.methods.general import GeneralSearch
from orchestrator.search.problem import Problem
from orchestrator.search.tabular import TabularPolicy, TabularReward


def test_stochastic_args_draws_from_the_softmax_of_its_values() -> None:
    policy = TabularPolicy(lambda x, y: [1.0, 0.5, 0.0, -9.0], end_id=2)
    reward = TabularReward(lambda x, y: {(): 0.4, (0,): -0.2, (1,): 0.3}[y])
    own = StochasticArgs(weight=2.0, k=3, temperature=0.5)
    count = 3000
    seen: Counter[tuple[Ids, str]] = Counter()
    for index in range(count):
        problem = Problem(f"p{index}", (7, 8), 0, 1)
        response = run(Recorder(policy, reward), own, problem)
        seen[response.token_ids, response.stop] += 1
    values = {((0,), "length"): 1.0 - 0.4, ((1,), "length"): 0.5 + 0.6, ((), "end"): 0.0 + 0.8}
    weights = {key: math.exp(value / 0.5) for key, value in values.items()}
    for key, weight in weights.items():
        assert seen[key] / count == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_stochastic_args_says_how_near_its_draw_was() -> None:
    values = [0.0, math.log(2.0), math.log(5.0)]  # shares of 1, 2 and 5 eighths
    assert draw_softmax(values, 0.0) == (0, 0.0)
    for draw, chosen, margin in ((0.25, 1, 0.125), (0.9, 2, 0.1)):
        assert draw_softmax(values, draw) == pytest.approx((chosen, margin))
    assert draw_softmax([7.0], 0.75) == (0, 0.25)


def test_stochastic_args_draws_the_same_where_two_logits_change_places() -> None:
    """Rounding may order two equal logits either way; the interval of a token stays."""
    flat = TabularReward(lambda x, y: 0.0)
    texts = set()
    for lean in (1e-12, -1e-12):
        policy = TabularPolicy(lambda x, y, lean=lean: [lean, 0.0, 0.5, -1.0], end_id=3)  # type: ignore[misc]
        own = StochasticArgs(weight=1.0, k=4)
        texts.add(run(Recorder(policy, flat), own).token_ids)
    assert len(texts) == 1


def test_beams_over_steps_compare_where_steps_end() -> None:
    engines = recorder(8, 5)
    response = run(engines, StepBeamSearch(beams=2, candidates=6, delimiter="1"))
    pieces = [(r, piece) for r, s in engines.samples for piece in s.continuations]
    assert {piece.stop for _, piece in pieces} >= {"stop"}
    for request, piece in pieces:
        assert request.stops == ("1",) and request.max_new_tokens == 6 - len(request.prefix_ids)
        assert 1 not in piece.token_ids[:-1]
        assert (piece.stop == "stop") == (piece.token_ids[-1:] == (1,))
    steps = sum(1 for token in response.token_ids if token == 1) + (response.token_ids[-1:] != (1,))
    assert len(response.step_scores) in (steps, steps + 1)  # the end token by itself is a piece


@pytest.mark.parametrize("seed", range(4))
def test_a_subtree_of_dvts_is_greedy_in_the_reward_whatever_the_others_do(seed: int) -> None:
    engines = recorder(seed, 5)
    response = run(engines, DVTS(subtrees=3, candidates=4, delimiter="1"))
    grown: list[tuple[Ids, bool]] = []
    for subtree in range(3):
        path: Ids = ()
        finished = False
        for step in range(6):
            if finished or len(path) == 6:
                break
            keys = tuple(stream_key(3, "p0", "dvts", step, subtree, k) for k in range(4))
            request = SampleRequest((7, 8), path, keys, 6 - len(path), stops=("1",))
            pieces = asyncio.run(engines.policy.sample(request)).continuations
            values = [engines.reward.value((7, 8), path + piece.token_ids) for piece in pieces]
            best = pieces[values.index(max(values))]
            path, finished = path + best.token_ids, best.stop == "end"
        grown.append((path, finished))
    compete = [y for y, finished in grown if finished] or [y for y, _ in grown]
    assert response.token_ids == max(compete, key=lambda y: engines.reward.value((7, 8), y))


def test_a_sentence_ends_where_its_text_does() -> None:
    words = ("so", "it.", "is!", "\n", "3.5")
    policy = replace(random_policy(2, 6), text=lambda ids: " ".join(words[i] for i in ids))
    engines = Recorder(policy, random_reward(2))
    run(engines, GeneralSearch(granularity="sentence", sequences=2, candidates=6))
    pieces = [piece for _, s in engines.samples for piece in s.continuations]
    stopped = {piece.token_ids[-1] for piece in pieces if piece.stop == "stop"}
    assert stopped <= {1, 2, 3, 4} and len(stopped) > 2
    assert all(set(piece.token_ids[:-1]) <= {0} for piece in pieces)


def test_equal_sequences_are_asked_about_together() -> None:
    policy = TabularPolicy(lambda x, y: [0.0, -60.0], end_id=1)  # always the same token
    engines = Recorder(policy, random_reward(0))
    run(engines, ChunkBeamSearch(beams=3, candidates=2, chunk=2))
    assert [len(request.keys) for request, _ in engines.samples] == [6, 6, 6]
    assert len(engines.scores) == 3


def test_margins_of_methods_by_hand() -> None:
    policy = TabularPolicy(lambda x, y: [1.0, 0.5, 0.0], end_id=2)
    reward = TabularReward(lambda x, y: 0.5 * y.count(1))
    # 1.0 + 0, 0.5 + 0.5 * w: at w = 1.25 they are 0.125 apart, and each step adds as much to both.
    args = run(Recorder(policy, reward), Args(weight=1.25, k=2))
    assert args.token_ids == (1,) * 6 and args.margin == pytest.approx(0.125)
    nearest = run(Recorder(policy, reward), Args(weight=1.0 + 1e-9, k=2))
    assert nearest.margin == pytest.approx(5e-10, rel=1e-3)
    # One segment, whose reward is the threshold plus beta * ln 0.5: taken if the draw is under 0.5.
    own = Cards(
        target_reward=1.0,
        beta=1.0,
        alpha=1.0,
        segment_cap=6,
        max_rejections=1,
        entropy_threshold=7.0,
    )
    half = Recorder(random_policy(3, 4), TabularReward(lambda x, y: 1.0 + math.log(0.5)))
    response = run(half, own, Problem("p0", (7, 8), 3, 1))
    draw_ = float(uniforms(stream_key(3, "p0", "cards-accept", 0, 0), 1)[0])
    sampled = half.samples[0][1].continuations[0].margin
    assert response.margin == pytest.approx(min(abs(draw_ - 0.5), sampled))
