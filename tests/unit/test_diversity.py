"""Diversity against products counted by hand."""

import pytest

from orchestrator.evaluation.metrics.diversity import diversity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d e", 1.0),
        # bigrams ab ba ab ba: 2/4; trigrams aba bab aba: 2/3; 4-grams abab baba: 2/2
        ("a b a b a", 2 / 4 * 2 / 3),
        # bigrams aa x 5: 1/5; trigrams 1/4; 4-grams 1/3
        ("a a a a a a", 1 / 5 * 1 / 4 * 1 / 3),
        ("a a a", 1 / 2),  # bigrams 1/2, one trigram, no 4-gram: n = 4 is left out
        ("a a", 1.0),
        ("a", 1.0),
        ("", 1.0),
    ],
)
def test_diversity_is_the_product_of_shares_of_unique_ngrams(text: str, expected: float) -> None:
    assert diversity(text) == pytest.approx(expected)


def test_words_are_split_at_any_white_space() -> None:
    assert diversity("a  b\na\tb a ") == diversity("a b a b a")


def test_token_ids_are_counted_like_words() -> None:
    assert diversity([7, 11, 7, 11, 7]) == diversity("a b a b a")
    assert diversity((1, 11, 111)) == 1.0
