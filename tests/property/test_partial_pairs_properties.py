"""Partial pairs hold their definitions for any row, length and text."""

from functools import cache
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from orchestrator.conversations.tokenizers import byte_pair_tokenizer
from orchestrator.data.truncation import (
    OFFICIAL_MAX_CUTS,
    official_cuts,
    same_prefix,
    stochastic_cuts,
    token_level_cuts,
    word_cut_to_token_cut,
)

lengths = st.integers(1, 3_000)
seeds = st.integers(0, 2**32)
pair_ids = st.text(st.characters(codec="utf-8"), max_size=20)


@given(lengths)
def test_token_level_truncation_has_every_length_once(length: int) -> None:
    cuts = token_level_cuts(length)

    assert len(cuts) == length
    assert set(cuts) == {t for t in range(length + 5) if 1 <= t <= length}


@given(length=lengths, k_mean=st.integers(1, 20), seed=seeds, pair_id=pair_ids)
def test_stochastic_cuts_are_at_most_2k_lengths_of_the_response(
    length: int, k_mean: int, seed: int, pair_id: str
) -> None:
    cuts = stochastic_cuts(length, k_mean, seed, pair_id)

    assert len(cuts) <= 2 * k_mean
    assert all(1 <= t <= length and isinstance(t, int) for t in cuts)
    assert all(t != after for t, after in pairwise(cuts))
    assert stochastic_cuts(length, k_mean, seed, pair_id) == cuts


@given(length=lengths, seed=seeds, pair_id=pair_ids)
def test_official_cuts_are_different_lengths_that_end_with_the_whole(
    length: int, seed: int, pair_id: str
) -> None:
    cuts = official_cuts(length, seed, pair_id)

    assert all(1 <= t < after for t, after in pairwise(cuts))
    assert cuts[-1] == length
    assert 1 <= len(cuts) <= min(OFFICIAL_MAX_CUTS + 1, length)
    assert official_cuts(length, seed, pair_id) == cuts


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_pair_tokenizer(["the cat sat on the mat, aaa bb é 漢"] * 3, vocabulary=290)


words_of_text = st.lists(st.text("abthe,.é漢字😀\u0301", min_size=1, max_size=5), max_size=8)
spaces = st.lists(st.sampled_from([" ", "  ", "\n", "\n\n", "\t", " \n "]), min_size=9, max_size=9)


@settings(deadline=None)  # the first example trains the tokenizer
@given(words=words_of_text, gaps=spaces, count=st.integers(0, 10))
def test_word_cuts_equal_the_longest_prefix_that_decodes_within_the_words(
    words: list[str], gaps: list[str], count: int
) -> None:
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    encoded = tokenizer()(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = encoded["input_ids"], [end for _, end in encoded["offset_mapping"]]
    kept = "".join(
        word + gap for word, gap in zip(words[:count], gaps, strict=False)
    ).rstrip()  # outer white space belongs to no word

    cut = word_cut_to_token_cut(text, ends, count)

    # The oracle decodes every prefix; one that ends inside a character decodes to something else.
    within = [t for t in range(len(ids) + 1) if kept.startswith(str(tokenizer().decode(ids[:t])))]
    assert cut == max(within)
    assert tokenizer().decode(ids[:cut]) == kept


tokens = st.lists(st.integers(0, 2), max_size=6)


@given(chosen=tokens, rejected=tokens, cut=st.integers(1, 8))
def test_prefixes_are_the_same_exactly_where_every_token_is(
    chosen: list[int], rejected: list[int], cut: int
) -> None:
    longest = max(len(chosen), len(rejected))
    padded = [[*row, *[-1] * (longest - len(row))][:cut] for row in (chosen, rejected)]

    assert same_prefix(chosen, rejected, cut, cut) == all(
        a == b for a, b in zip(*padded, strict=True)
    )


@given(chosen=tokens, rejected=tokens)
def test_once_prefixes_differ_they_stay_different(chosen: list[int], rejected: list[int]) -> None:
    assume(chosen != rejected)
    same = [same_prefix(chosen, rejected, cut, cut) for cut in range(1, 8)]

    assert same == sorted(same, reverse=True)
    assert not same[-1]
