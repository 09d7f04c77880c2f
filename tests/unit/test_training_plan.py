"""Which rows make up each optimizer step, each worker's share of them, and rows on disk."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.objectives.examples import PairExample, TextExample
from orchestrator.training.files import read_examples, read_rows, to_examples, write_examples
from orchestrator.training.plan import (
    GROUP,
    WINDOW,
    shares,
    shuffled,
    steps_of_count,
    steps_of_epochs,
)

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
    steps = steps_of_epochs(sizes, batch_size, epochs, seed)
    per_epoch = steps_of_epochs(sizes, batch_size, 1, seed)
    counted = sorted(row for row, size in enumerate(sizes) if size)
    assert sorted(row for step in per_epoch for row in step) == counted
    assert sorted(row for step in steps for row in step) == sorted(counted * epochs)
    assert steps[: len(per_epoch)] == per_epoch


@given(row_sizes, st.integers(1, 12), st.integers(0, 5))
def test_a_step_holds_the_batch_size_and_not_one_row_more(
    sizes: list[int], batch_size: int, seed: int
) -> None:
    steps = steps_of_epochs(sizes, batch_size, 1, seed)
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
    steps = steps_of_count(sizes, batch_size, count, seed)
    if not any(sizes):
        assert steps == []
        return
    assert len(steps) == count
    epoch = steps_of_epochs(sizes, batch_size, 1, seed)
    assert steps[: len(epoch)] == epoch[:count]


@given(row_sizes, st.integers(1, 12), st.integers(1, 5))
def test_the_shares_of_all_workers_are_the_whole_step(
    sizes: list[int], batch_size: int, workers: int
) -> None:
    for step in steps_of_epochs(sizes, batch_size, 1, 0):
        shares = [step[rank::workers] for rank in range(workers)]
        assert sorted(row for share in shares for row in share) == sorted(step)
        total = sum(sizes[row] for row in step)
        assert sum(sum(sizes[row] for row in share) / total for share in shares) == pytest.approx(1)


def test_plans_of_equal_sizes_are_cut_by_hand() -> None:
    steps = steps_of_epochs([1] * 10, 4, 1, seed=0)
    assert [len(step) for step in steps] == [4, 4, 2]
    assert steps_of_epochs([5, 5], 1, 1, seed=0) in ([[0], [1]], [[1], [0]])


def test_epochs_and_seeds_are_shuffled_each_in_its_own_way() -> None:
    sizes = [1] * 30
    first, second = steps_of_epochs(sizes, 30, 2, seed=0)
    assert first != second
    assert steps_of_epochs(sizes, 30, 2, seed=0) == [first, second]
    assert steps_of_epochs(sizes, 30, 1, seed=1) != [first]
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


def test_an_epoch_of_many_rows_goes_through_the_file_window_by_window() -> None:
    rows = GROUP * WINDOW * 2 + 700
    order = shuffled(rows, 0, "epoch", 0)
    assert sorted(order) == list(range(rows))
    first = {row // GROUP for row in order[: GROUP * (WINDOW - 1)]}
    assert len(first) == WINDOW, "a reader holds the groups of one window"
    assert order != shuffled(rows, 0, "epoch", 1)


batches_of = st.tuples(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 5),
    st.none() | st.integers(1, 120),
)


@given(batches_of)
def test_shares_hold_every_row_once_and_as_many_passes_for_each_worker(
    case: tuple[list[int], int, int | None],
) -> None:
    tokens, workers, most = case
    found = shares(range(len(tokens)), tokens, workers, most)
    assert len({len(own) for own in found}) == 1 and found[0]
    counted = [row for own in found for batch in own if batch.counts for row in batch.rows]
    assert sorted(counted) == list(range(len(tokens)))
    for own in found:
        for batch in own:
            assert batch.rows, "a pass needs a row"
            padded = max(tokens[row] for row in batch.rows) * len(batch.rows)
            assert most is None or padded <= most or len(batch.rows) == 1


def test_rows_of_like_length_share_a_micro_batch_by_hand() -> None:
    (first,), (second,) = shares([0, 1, 2], [9, 1, 5], 2, None)
    assert (first.rows, second.rows) == ((1, 0), (2,))
    (own,) = shares([0, 1, 2], [9, 1, 5], 1, 10)
    assert [batch.rows for batch in own] == [(1, 2), (0,)]
    one, other = shares([4], [0] * 5, 2, None)
    assert one[0].counts and not other[0].counts


def test_rows_are_read_by_number_across_groups(tmp_path: Path) -> None:
    rows = [TextExample((i,), (i + 1, 3)) for i in range(GROUP * 2 + 5)]
    write_examples(tmp_path / "examples.parquet", rows)
    wanted = [GROUP + 3, 0, GROUP * 2 + 4, GROUP - 1]
    found = to_examples(read_rows(tmp_path / "examples.parquet", wanted))
    assert found == [rows[i] for i in wanted]
