"""Partial pairs: TLT, SST(K), the public code's draw, and word cuts as token cuts."""

import random
from collections import Counter
from functools import partial
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pytest
from scipy.stats import chisquare
from support.template_families import reward_model
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.chat import load_chat
from orchestrator.conversations.tokenizers import byte_pair_tokenizer
from orchestrator.data.partial_pairs import CutPairs
from orchestrator.data.truncation import (
    official_cuts,
    same_prefix,
    stochastic_cuts,
    token_level_cuts,
    word_cut_to_token_cut,
)
from orchestrator.randomness import generator

K = 5  # the paper's
ROWS = [f"row-{i}" for i in range(4_000)]
LONG = 10**9  # so many lengths that none is drawn twice: the number of cuts is k itself
SURPRISING = 1e-3  # p-value of a chi-square; the seeds are fixed, so a test that passes stays so
TEXT = "The naïve 漢字 reader 😀 asks:\n\nwhy  not\tété?"


def test_token_level_truncation_cuts_everywhere() -> None:
    assert token_level_cuts(4) == [1, 2, 3, 4]
    assert token_level_cuts(1) == [1]


@pytest.mark.parametrize("k_mean", [1, 2, K])
def test_k_is_uniform_from_0_to_twice_its_mean(k_mean: int) -> None:
    counts = Counter(len(stochastic_cuts(LONG, k_mean, 0, row)) for row in ROWS)

    assert set(counts) == set(range(2 * k_mean + 1))
    assert chisquare([counts[k] for k in range(2 * k_mean + 1)]).pvalue > SURPRISING
    mean = sum(k * n for k, n in counts.items()) / len(ROWS)
    assert mean == pytest.approx(k_mean, abs=0.05 * k_mean)


@pytest.mark.parametrize("place", [0, -1])
def test_lengths_are_uniform_from_1_to_the_longer_response(place: int) -> None:
    length = 20
    cuts = [stochastic_cuts(length, K, 0, row) for row in ROWS]
    counts = Counter(drawn[place] for drawn in cuts if drawn)

    assert set(counts) == set(range(1, length + 1))
    assert chisquare([counts[t] for t in range(1, length + 1)]).pvalue > SURPRISING


def test_draws_are_independent_of_k_and_of_each_other() -> None:
    # With T = 2 and k draws, each after the first repeats the one before with chance 1/2 and is
    # then dropped: (k + 1) / 2 cuts on average. Over k = 1..10 that is (1 + 2 + .. + 10 + 10) / 20.
    sizes = [len(stochastic_cuts(2, K, 0, row)) for row in ROWS]
    drawn = [size for size in sizes if size]

    assert sum(drawn) / len(drawn) == pytest.approx(3.25, abs=0.1)
    assert sizes.count(0) / len(ROWS) == pytest.approx(1 / 11, abs=0.015)


def test_lengths_drawn_twice_in_a_row_are_kept_once_and_others_are_kept() -> None:
    returned = 0
    for row in ROWS:
        rng = generator(3, "sst", row)
        count = int(rng.integers(0, 2 * K + 1))
        draws = [int(t) for t in rng.integers(1, 4, size=count)]
        cuts = stochastic_cuts(3, K, 3, row)

        assert cuts == [t for t, _ in groupby(draws)]
        returned += len(set(cuts)) < len(cuts)
    assert returned > len(ROWS) / 2  # a length that comes back later is drawn with replacement


def test_with_a_single_token_there_is_one_cut_or_none() -> None:
    assert {tuple(stochastic_cuts(1, K, 0, row)) for row in ROWS} == {(), (1,)}


def test_a_rows_cuts_depend_on_seed_and_row_alone() -> None:
    order = ROWS[:200]
    shuffled = random.Random(0).sample(order, len(order))
    stochastic = partial(stochastic_cuts, 37, K)
    official = partial(official_cuts, 37)
    for draw in (stochastic, official):
        expected = {row: draw(0, row) for row in order}
        assert {row: draw(0, row) for row in shuffled[:100]} == {
            row: expected[row] for row in shuffled[:100]
        }
        same = sum(draw(1, row) == expected[row] for row in order)
        assert same < 40  # another seed draws otherwise; no cuts at all come by 1/11 x 1/11
        assert len({tuple(cuts) for cuts in expected.values()}) > 150
    # On every machine, in every process.
    assert stochastic_cuts(37, K, 0, "row-1") == [13, 23, 24, 26, 23, 30]
    assert official_cuts(37, 0, "row-1") == [3, 9, 10, 11, 17, 20, 23, 33, 37]


def test_the_official_draw_ignores_k_and_adds_the_full_pair() -> None:
    length = 20
    for row in ROWS:
        cuts = official_cuts(length, 0, row)
        assert cuts[-1] == length
        assert cuts == sorted(set(cuts))  # rising, so without replacement
        assert cuts[0] >= 1
    counts = Counter(len(official_cuts(length, 0, row)) for row in ROWS)
    # m cuts: k = m of which one is T (chance m/T), or k = m - 1, none of them T. k is of 1..10.
    expected = [1 / 200, *[21 / 200] * 9, 10 / 200]
    assert set(counts) <= set(range(1, 12))
    observed = [counts[m] for m in range(1, 12)]
    assert chisquare(observed, [p * len(ROWS) for p in expected]).pvalue > SURPRISING


def test_the_official_lengths_are_uniform() -> None:
    length = 20
    counts = Counter(t for row in ROWS for t in official_cuts(length, 0, row) if t < length)

    # Draws without replacement spread more evenly than a chi-square takes for granted, never less.
    assert set(counts) == set(range(1, length))
    assert chisquare([counts[t] for t in range(1, length)]).pvalue > SURPRISING


def test_the_official_draw_takes_no_more_lengths_than_there_are() -> None:
    drawn = {tuple(official_cuts(2, 0, row)) for row in ROWS}

    assert drawn == {(1, 2), (2,)}
    assert {tuple(official_cuts(1, 0, row)) for row in ROWS[:50]} == {(1,)}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    # Small enough that 漢, 字 and 😀 are several tokens each, and common words are one.
    return byte_pair_tokenizer(["The reader asks: why not, reader?"] * 3, vocabulary=290)


def test_word_cuts_end_where_the_word_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    prefixes = [
        tokenizer.decode(ids[: word_cut_to_token_cut(TEXT, ends, words)]) for words in range(9)
    ]

    assert len(ids) > len(TEXT.split())  # words of several tokens, so the cut is not the count
    assert prefixes == [
        "",
        "The",
        "The naïve",
        "The naïve 漢字",
        "The naïve 漢字 reader",
        "The naïve 漢字 reader 😀",
        "The naïve 漢字 reader 😀 asks:",
        "The naïve 漢字 reader 😀 asks:\n\nwhy",
        "The naïve 漢字 reader 😀 asks:\n\nwhy  not",
    ]
    assert tokenizer.decode(ids[: word_cut_to_token_cut(TEXT, ends, 9)]) == TEXT


def test_past_the_last_word_a_word_cut_is_the_whole_response(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    encoded = tokenizer(TEXT, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]

    assert word_cut_to_token_cut(TEXT, ends, 100) == len(ends)
    assert word_cut_to_token_cut("", [], 3) == 0


def test_a_word_that_is_part_of_an_earlier_one_is_found_in_its_place() -> None:
    # "a" stands in "banana" too; the tokens are the characters.
    text = "banana a b"
    ends = [i + 1 for i in range(len(text))]

    assert [word_cut_to_token_cut(text, ends, words) for words in range(4)] == [0, 6, 8, 10]


def test_a_token_that_reaches_past_the_word_is_left_out() -> None:
    # Tokens "go", " on", " now!": a tokenizer with merges across words would write " on now".
    assert word_cut_to_token_cut("go on now!", [2, 9, 10], 2) == 1


@pytest.mark.parametrize("family", ["ChatML", "Llama 3", "Gemma", "Mistral, bytes", "Mistral"])
def test_the_official_cuts_are_those_of_the_rendered_response(family: str, tmp_path: Path) -> None:
    """Trimmed white space, a spelled control token, and a first word that merges with a space."""
    reward = reward_model(family, tmp_path)
    chat = load_chat(reward)
    control = chat.tokenizer.convert_ids_to_tokens(min(chat.control.ids))
    responses = {
        "chosen": "  \n 2 plus 3 is the answer, that is 5, café 你好.",
        "rejected": f"The answer {control} is system, think: {control} 7. ",
    }
    messages = [{"role": "user", "content": f"What is {control} 2?"}]
    pairs = [{"pair_id": f"{i}", "messages": messages, **responses} for i in range(20)]
    cutting = CutPairs(reward, {"sst": 1.0}, "official", K, 0)
    rows = cutting(pa.Table.from_pylist(pairs)).to_pylist()
    for side, response in responses.items():
        words, seen = response.split(), set()
        for row in rows:
            counts = official_cuts(11, 0, row["pair_id"])
            assert len(counts) == len(row[f"{side}_cuts"]) + row["same_prefix"]
            for count, cut in zip(counts[row["same_prefix"] :], row[f"{side}_cuts"], strict=True):
                prefix = chat.tokenizer.decode(row[f"{side}_ids"][:cut])
                assert prefix.split() == words[:count]
                seen.add(count)
        assert len(seen) > 5


def test_prefixes_are_the_same_up_to_where_they_part() -> None:
    assert same_prefix([1, 2, 3], [1, 2, 4], 2, 2)
    assert not same_prefix([1, 2, 3], [1, 2, 4], 3, 3)
    assert not same_prefix([1, 2], [1, 2, 4], 3, 3)  # a prefix past the end is the whole response
    assert same_prefix([1, 2], [1, 2], 9, 9)
    assert same_prefix([1, 2, 3], [1, 2], 2, 5)  # each side has its own cut
