"""Which actor gets what, and what a pool does when actors are gone; real actors of Ray."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
import ray
from conftest import own_ray
from hypothesis import given
from hypothesis import strategies as st

from actors.pool import SLACK, Pool, PoolIsDead, Router


def test_a_prompt_stays_with_its_actor_and_new_ones_go_to_the_least_loaded() -> None:
    router = Router(2)
    assert router.route(["a", "b", "c"], [5, 3, 1]) == {0: [0], 1: [1, 2]}
    # The same prompts in another order stay where they are; a new one fills up.
    assert router.route(["c", "d", "b", "a"], [1, 1, 1, 1]) == {0: [1, 3], 1: [0, 2]}
    assert router.route(["b", "a"], [1, 1]) == {0: [1], 1: [0]}


def test_beams_of_a_prompt_stay_together_unless_actors_would_idle() -> None:
    assert Router(2).route(["a", "a", "b", "b"], [1] * 4) == {0: [0, 1], 1: [2, 3]}
    assert Router(2).route(["a"] * 4, [1] * 4) == {0: [0, 2], 1: [1, 3]}


def test_an_actor_that_holds_too_much_gives_some_away() -> None:
    router = Router(2)
    router.route(list("abcdef"), [1] * 6)
    held = router.route(list("abcdef"), [1] * 6)[0]
    left = ["abcdef"[i] for i in held]  # the prompts of the other actor have ended
    batches = router.route(left, [1] * len(left))
    assert max(map(len, batches.values())) < len(left)


def test_what_a_lost_actor_held_goes_to_the_others() -> None:
    router = Router(3)
    router.route(list("abc"), [1] * 3)
    router.remove(1)
    assert router.alive == 2 and 1 not in router.route(list("abc"), [1] * 3)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=30),
    st.integers(1, 4),
)
def test_every_item_goes_to_one_actor_and_none_has_far_more_than_its_share(
    items: list[tuple[int, int]], actors: int
) -> None:
    router = Router(actors)
    for _ in range(3):
        keys, weights = [key for key, _ in items], [float(w) for _, w in items]
        batches = router.route(keys, weights)
        assert sorted(i for batch in batches.values() for i in batch) == list(range(len(items)))
        assert all(batch == sorted(batch) for batch in batches.values())
        loads = [sum(weights[i] for i in batch) for batch in batches.values()]
        heaviest = max(sum(w for k, w in items if k == key) for key in keys)
        assert max(loads) <= SLACK * sum(weights) / actors + heaviest


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with own_ray():
        yield


@ray.remote
class Doubler:
    """Doubles numbers; ends its process at 13 if it was told to."""

    def __init__(self, dies: bool) -> None:
        self._dies = dies

    def double(self, numbers: list[int]) -> list[int]:
        if self._dies and 13 in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 * number for number in numbers]


def ask(pool: Pool, numbers: list[int]) -> list[int]:
    return asyncio.run(
        pool.map(numbers, numbers, [1] * len(numbers), lambda a, batch: a.double.remote(batch))
    )


def test_the_share_of_an_actor_that_is_gone_is_done_by_the_others(cluster: None) -> None:
    actors = [Doubler.options(num_cpus=0).remote(dies) for dies in (False, True)]  # type: ignore[attr-defined]
    pool = Pool("policy", actors)
    assert ask(pool, [1, 2, 3]) == [2, 4, 6]
    assert ask(pool, [12, 13, 14, 15]) == [24, 26, 28, 30]
    assert ask(pool, [13, 14]) == [26, 28]


def test_a_dead_pool_says_which_and_why(cluster: None) -> None:
    pool = Pool("reward", [Doubler.options(num_cpus=0).remote(True) for _ in range(2)])  # type: ignore[attr-defined]
    with pytest.raises(PoolIsDead, match="all 2 reward actors are dead; the last error: "):
        ask(pool, [13, 14, 15])
