"""Pairs are split by prompt, by shares of prompts, in an order that only seed and prompt decide."""

import pytest

from orchestrator.data.splits import split_pairs
from orchestrator.records import PreferencePair, Prompt

SHARES = {"policy": 0.3, "orm": 0.2, "reference": 0.3}


def pairs_of(prompts: int, each: int = 1) -> list[PreferencePair]:
    return [
        PreferencePair(f"{prompt}/{k}", Prompt(f"p{prompt}", ()), f"good {k}", "bad")
        for k in range(each)
        for prompt in range(prompts)
    ]


def prompts_in(split: list[PreferencePair]) -> set[str]:
    return {pair.prompt.prompt_id for pair in split}


def test_shares_count_prompts_that_are_not_for_the_test() -> None:
    splits = split_pairs(pairs_of(120, each=2), SHARES, test_prompts=20, seed=1)

    assert {name: len(prompts_in(split)) for name, split in splits.items()} == {
        "policy": 30,
        "orm": 20,
        "reference": 30,
        "prm": 20,
        "test": 20,
    }
    assert all(len(split) == 2 * len(prompts_in(split)) for split in splits.values())


def test_a_split_keeps_the_order_of_the_pairs() -> None:
    pairs = pairs_of(50, each=2)
    splits = split_pairs(pairs, SHARES, test_prompts=10, seed=1)

    for split in splits.values():
        assert [pairs.index(pair) for pair in split] == sorted(map(pairs.index, split))


def test_the_split_of_a_prompt_does_not_depend_on_the_order_of_the_file() -> None:
    pairs = pairs_of(60)
    forwards = split_pairs(pairs, SHARES, test_prompts=10, seed=1)
    backwards = split_pairs(pairs[::-1], SHARES, test_prompts=10, seed=1)

    assert {name: prompts_in(split) for name, split in forwards.items()} == {
        name: prompts_in(split) for name, split in backwards.items()
    }


def test_another_seed_splits_otherwise() -> None:
    first, second = (split_pairs(pairs_of(200), SHARES, 100, seed)["test"] for seed in (1, 2))

    # Two independent halves share about half of their members; equal ones would share all.
    assert 30 < len(prompts_in(first) & prompts_in(second)) < 70


def test_added_rows_move_few_prompts() -> None:
    before = split_pairs(pairs_of(1_000), SHARES, test_prompts=100, seed=1)
    after = split_pairs(pairs_of(1_050), SHARES, test_prompts=100, seed=1)

    moved = sum(len(prompts_in(before[name]) - prompts_in(after[name])) for name in before)
    # Only borders move. Were the order drawn anew, 78 % of the prompts would change their split.
    assert moved < 100


def test_without_shares_and_test_all_is_the_prms() -> None:
    pairs = pairs_of(3)

    assert split_pairs(pairs, {}, test_prompts=0, seed=1) == {"prm": pairs, "test": []}


def test_a_share_of_0_leaves_its_split_empty_and_the_others_as_they_would_be() -> None:
    pairs = pairs_of(60)
    shares = {"policy": 0.0, "orm": 0.5, "reference": 0.0}
    splits = split_pairs(pairs, shares, test_prompts=10, seed=1)

    assert {name: len(split) for name, split in splits.items()} == {
        "policy": 0, "orm": 25, "reference": 0, "prm": 25, "test": 10,
    }  # fmt: skip
    alone = split_pairs(pairs, {"orm": 0.5}, test_prompts=10, seed=1)
    assert all(splits[name] == alone[name] for name in alone)


def test_shares_of_0_leave_the_prm_all_but_the_test() -> None:
    splits = split_pairs(pairs_of(12), dict.fromkeys(SHARES, 0.0), test_prompts=2, seed=1)

    assert len(splits["prm"]) == 10 and len(splits["test"]) == 2


@pytest.mark.parametrize(
    ("prompts", "test_prompts", "message"),
    [
        (0, 0, "0 prompts are too few"),
        (3, 0, "3 prompts are too few .* policy 1, orm 1, reference 0, prm 1, test 0"),
        (20, 20, "20 prompts are too few .* policy 0, orm 0, reference 0, prm 0, test 20"),
        (5, 20, "data.test_prompts = 20: 5 prompts are too few for all splits, .*; valid: a smal"),
    ],
)
def test_an_empty_split_is_an_error_with_the_counts(
    prompts: int, test_prompts: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        split_pairs(pairs_of(prompts), SHARES, test_prompts, seed=1)


@pytest.mark.parametrize(
    ("shares", "test_prompts"),
    [
        ({"orm": float("nan")}, 1),
        ({"orm": -0.1, "policy": 0.5}, 1),
        ({"orm": 0.5, "policy": 0.5}, 1),
        ({"prm": 0.5}, 1),
        ({"test": 0.5}, 1),
        ({"orm": 0.5}, -1),
    ],
)
def test_impossible_shares_are_refused(shares: dict[str, float], test_prompts: int) -> None:
    with pytest.raises(
        ValueError, match=r"valid: at least|each must be at least|test_prompts sets the"
    ):
        split_pairs(pairs_of(50), shares, test_prompts, seed=1)
