"""Which rows make up each optimizer step, each worker's share of them, and rows on disk."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.training.examples import PairExample, TextExample, plan, plan_for_steps
from orchestrator.training.files import read_examples, write_examples

row_sizes = st.lists(st.integers(0, 9), min_size=1, max_size=40)
TEXTS = [TextExample((1, 2), (3, 4, 5)), TextExample((9,), (2,))]
PAIRS = [
    PairExample((1,), (2, 3), (4,), (1, 2), (1, 2), (1.4426950408889634, 10.0)),
    PairExample((1, 8), (7,), (5, 6), (2,), (1,), (0.1,)),
]


@given(row_sizes, st.integers(1, 12), st.integers(1, 3), st.integers(0, 5))
def test_every_row_that_counts_comes_once_in_each_epoch(
    sizes: list[int], batch_size: int, epochs: int, seed: int
) -> None:
    steps = plan(sizes, batch_size, epochs, seed)
    per_epoch = plan(sizes, batch_size, 1, seed)
    counted = sorted(row for row, size in enumerate(sizes) if size)
    assert sorted(row for step in per_epoch for row in step) == counted
    assert sorted(row for step in steps for row in step) == sorted(counted * epochs)
    assert steps[: len(per_epoch)] == per_epoch


@given(row_sizes, st.integers(1, 12), st.integers(0, 5))
def test_a_step_holds_the_batch_size_and_not_one_row_more(
    sizes: list[int], batch_size: int, seed: int
) -> None:
    steps = plan(sizes, batch_size, 1, seed)
    for number, step in enumerate(steps):
        assert step, "no empty step"
        without_last = sum(sizes[row] for row in step[:-1])
        assert without_last < batch_size
        if number < len(steps) - 1:
            assert without_last + sizes[step[-1]] >= batch_size


@given(row_sizes, st.integers(1, 12), st.integers(1, 25), st.integers(0, 5))
def test_a_plan_for_steps_has_exactly_so_many_and_begins_as_the_plain_one(
    sizes: list[int], batch_size: int, count: int, seed: int
) -> None:
    steps = plan_for_steps(sizes, batch_size, count, seed)
    if not any(sizes):
        assert steps == []
        return
    assert len(steps) == count
    epoch = plan(sizes, batch_size, 1, seed)
    assert steps[: len(epoch)] == epoch[:count]


@given(row_sizes, st.integers(1, 12), st.integers(1, 5))
def test_the_shares_of_all_workers_are_the_whole_step(
    sizes: list[int], batch_size: int, workers: int
) -> None:
    for step in plan(sizes, batch_size, 1, 0):
        shares = [step[rank::workers] for rank in range(workers)]
        assert sorted(row for share in shares for row in share) == sorted(step)
        total = sum(sizes[row] for row in step)
        assert sum(sum(sizes[row] for row in share) / total for share in shares) == pytest.approx(1)


def test_plans_of_equal_sizes_are_cut_by_hand() -> None:
    steps = plan([1] * 10, 4, 1, seed=0)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert plan([5, 5], 1, 1, seed=0) in ([[0], [1]], [[1], [0]])


def test_epochs_and_seeds_are_shuffled_each_in_its_own_way() -> None:
    sizes = [1] * 30
    first, second = plan(sizes, 30, 2, seed=0)
    assert first != second
    assert plan(sizes, 30, 2, seed=0) == [first, second]
    assert plan(sizes, 30, 1, seed=1) != [first]
    assert first != list(range(30))


@pytest.mark.parametrize("rows", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_rows_come_back_from_disk_as_they_were(rows: list, tmp_path: Path) -> None:  # type: ignore[type-arg]
    write_examples(tmp_path / "examples.parquet", rows)
    assert read_examples(tmp_path / "examples.parquet") == rows


def test_a_training_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"examples\.parquet: no training rows"):
        write_examples(tmp_path / "examples.parquet", [])


def test_a_rows_size_is_what_it_counts_for() -> None:
    assert [row.size for row in TEXTS + PAIRS] == [1, 1, 2, 1]
