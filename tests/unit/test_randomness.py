"""Keyed streams: numpy's own, whatever was drawn before, in any thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.randomness import first_uniforms, uniforms

KEYS = st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 9)), min_size=1, max_size=8)


def expected(key: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=key)).random(count)


@given(KEYS)
def test_a_stream_is_its_keys_alone(asked: list[tuple[int, int]]) -> None:
    for key, count in asked:
        assert np.array_equal(uniforms(key, count), expected(key, count))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_first_numbers_of_many_streams_are_those_of_each(keys: list[int]) -> None:
    assert first_uniforms(keys).tolist() == [expected(key, 1)[0] for key in keys]


def test_threads_do_not_disturb_each_other() -> None:
    keys = list(range(2_000))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda key: uniforms(key, 3), keys))
    assert all(np.array_equal(f, expected(key, 3)) for key, f in zip(keys, found, strict=True))
