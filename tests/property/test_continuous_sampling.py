"""Requests that come at any step get the continuations that they get alone."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.engines.huggingface import policy as module
from orchestrator.engines.huggingface import sample_batch
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.randomness import stream_key
from orchestrator.search.engines import Ids, Sampled, SampleRequest
from orchestrator.tasks.helpdesk import agents

MOST = 14  # new tokens
PROMPTS = 4


@pytest.fixture(scope="module")
def engine(word_policy: str) -> HuggingFacePolicy:
    """In float64: there a text does not depend on what else is in a batch."""
    return HuggingFacePolicy(word_policy, dtype="float64")


@pytest.fixture(scope="module")
def alone(word_policy: str) -> Callable[[SampleRequest], Sampled]:
    """What a request gets from an engine that has read nothing and has nothing else to do."""
    single = HuggingFacePolicy(word_policy, dtype="float64")

    @cache
    def answer(request: SampleRequest) -> Sampled:
        single.clear_cache()
        return single.sample([request])[0]

    return answer


@cache
def prompt(engine: HuggingFacePolicy, number: int) -> Ids:
    return engine.chat.prompt_ids(agents.prompts(PROMPTS, seed=5)[number].messages)


# Of each request: its prompt, how many samples, the most tokens, its ending, and, where it goes on
# from a sample of an earlier request, the number of that one.
requests = st.tuples(
    st.integers(0, PROMPTS - 1),
    st.integers(1, 4),
    st.sampled_from([1, 2, 5, MOST]),
    st.sampled_from(["length", "entropy", "stop", "greedy"]),
    st.none() | st.integers(0, 5),
)
# (steps between the requests before and these, requests that come together)
arrivals = st.lists(st.tuples(st.integers(0, 6), st.lists(requests, max_size=3)), max_size=5)


def asked(engine: HuggingFacePolicy, number: int, form: tuple, done: list) -> SampleRequest:  # type: ignore[type-arg]
    which, samples, most, ending, after = form
    x, y = prompt(engine, which), ()
    if after is not None and after < len(done):  # as a search goes on from what it kept
        request, answer = done[after]
        x, y = request.prompt_ids, request.prefix_ids + answer.continuations[-1].token_ids
    return SampleRequest(
        x,
        y,
        tuple(stream_key("continuous", number, i) for i in range(samples)),
        most,
        greedy=ending == "greedy",
        entropy_stop=2.0 if ending == "entropy" else None,
        stops=(" .",) if ending == "stop" else (),
    )


@pytest.mark.parametrize(("rows", "compact", "stale"), [(512, 0.7, 64), (3, 1.0, 1), (6, 0.0, 999)])
def test_what_is_under_way_beside_a_request_does_not_change_its_continuations(
    engine: HuggingFacePolicy,
    alone: Callable[[SampleRequest], Sampled],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    compact: float,
    stale: int,
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BATCH", rows)
    monkeypatch.setattr(sample_batch, "COMPACT_BELOW", compact)
    monkeypatch.setattr(sample_batch, "STALE_COLUMNS", stale)

    @given(arrivals, st.booleans())
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(plan: list, forgets: bool) -> None:  # type: ignore[type-arg]
        if forgets:
            engine.clear_cache()
        waiting: dict[int, SampleRequest] = {}
        done: list[tuple[SampleRequest, Sampled]] = []

        def step() -> None:
            for number, answer in engine.step().items():
                done.append((waiting.pop(number), answer))

        for steps, forms in plan:
            for _ in range(steps):
                step()
            some = [asked(engine, i, form, done) for i, form in enumerate(forms, len(done))]
            waiting.update(zip(engine.add(some), some, strict=True))
        for _ in range(1_000):
            if not waiting:
                break
            step()
        assert not waiting
        assert engine.step() == {}
        for request, answer in done:
            expected = alone(request)
            for found, own in zip(answer.continuations, expected.continuations, strict=True):
                assert (found.token_ids, found.stop) == (own.token_ids, own.stop)
                assert found.entropies == pytest.approx(own.entropies)
            assert answer.tokens_sampled == expected.tokens_sampled
            assert answer.tokens_computed <= expected.tokens_computed

    check()


def test_what_is_dropped_leaves_nothing(
    engine: HuggingFacePolicy, alone: Callable[[SampleRequest], Sampled]
) -> None:
    long = SampleRequest(prompt(engine, 0), (), (1, 2, 3), MOST)
    engine.add([long, SampleRequest(prompt(engine, 1), (), (4,), MOST)])
    engine.step()
    engine.abort()
    assert engine.step() == {}
    (answer,) = engine.sample([long])
    assert [c.token_ids for c in answer.continuations] == [
        c.token_ids for c in alone(long).continuations
    ]


def test_a_request_that_is_done_does_not_wait_for_another(engine: HuggingFacePolicy) -> None:
    short = SampleRequest(prompt(engine, 0), (), (1, 2), 2)
    long = SampleRequest(prompt(engine, 1), (), (3,), MOST, greedy=True)
    first, second = engine.add([short, long])
    answered: list[int] = []
    steps = 0
    while len(answered) < 2:
        answered += engine.step()
        steps += 1
        if answered == [first]:
            assert steps < MOST - 1
    assert answered == [first, second]
