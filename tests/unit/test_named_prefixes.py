"""Prefixes by name: every way against cuts counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.prefixes import Prefixes
from orchestrator.data.truncation import stochastic_cuts


def no_steps() -> list[int]:
    raise AssertionError("the ends of steps are not needed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("whole", [7]),
        ("tlt", [1, 2, 3, 4, 5, 6, 7]),
        ("every:3", [3, 6, 7]),
        ("every:7", [7]),
        ("every:50", [7]),
        ("5,2,2,9,100", [2, 5, 7]),
        (" 4 ", [4]),
        ("1, 3", [1, 3]),
    ],
)
def test_cuts_of_a_response_of_seven_tokens(text: str, expected: list[int]) -> None:
    assert Prefixes.parse(text).cuts(7, 7, no_steps, 0, "row") == expected


def test_steps_end_where_they_end_and_at_the_end() -> None:
    steps = Prefixes.parse("steps")
    assert steps.cuts(9, 9, lambda: [2, 5], 0, "row") == [2, 5, 9]
    assert steps.cuts(9, 9, lambda: [2, 9], 0, "row") == [2, 9]
    assert steps.cuts(9, 9, list, 0, "row") == [9]


@pytest.mark.parametrize("k", [1, 5])
def test_sst_draws_what_training_draws_for_the_pair_of_that_name(k: int) -> None:
    named = Prefixes.parse("sst" if k == 5 else f"sst:{k}")
    for row in range(20):
        drawn = stochastic_cuts(30, k, 3, f"file-{row}")
        found = named.cuts(20, 30, no_steps, 3, f"file-{row}")
        assert found == sorted({min(t, 20) for t in drawn})
    assert len({tuple(named.cuts(30, 30, no_steps, 3, f"file-{row}")) for row in range(9)}) > 1


@pytest.mark.parametrize(
    "text", ["", "tlt:2", "every", "every:", "every:0", "sst:x", "0", "-1", "1,,2", "5;6", "½"]
)
def test_what_is_no_way_to_cut_is_told_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"valid: whole .* every:N") as error:
        Prefixes.parse(text)
    assert repr(text) in str(error.value)


@given(
    st.sampled_from(["whole", "tlt", "sst", "sst:2", "every:4", "steps", "3,8,20"]),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 5),
)
def test_cuts_rise_stay_inside_and_depend_on_the_row_alone(
    text: str, length: int, more: int, row: int
) -> None:
    ways = [
        Prefixes.parse(text).cuts(length, length + more, lambda: [1], 1, f"x-{row}")
        for _ in range(2)
    ]
    cuts = ways[0]
    assert ways[1] == cuts
    assert cuts == sorted(set(cuts)) and all(1 <= t <= length for t in cuts)
    assert cuts or text.startswith("sst")
