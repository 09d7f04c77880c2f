"""Truncation lengths of partial pairs (section 4.1.1).

Token-Level Truncation (TLT) uses every length, Stochastic Sampling Truncation (SST) random ones.
Draws are keyed by seed and pair id, so that a pair's prefixes do not depend on batch, shard or
worker.
"""

from collections.abc import Sequence
from typing import Literal

from orchestrator.randomness import generator

Truncation = Literal["sst", "tlt", "whole"]
Preset = Literal["paper", "official"]

OFFICIAL_MAX_CUTS = 10  # the public code draws k from 1 to 10 and ignores K


def token_level_cuts(length: int) -> list[int]:
    """Return TLT's cuts: all t = 1..T, where T = ``length`` = max(|y_w|, |y_l|) in tokens."""
    return list(range(1, length + 1))


def stochastic_cuts(length: int, k_mean: int, seed: int, pair_id: str) -> list[int]:
    """Return SST(K)'s cuts: k ~ uniform 0..2K, then k draws t ~ uniform 1..T with replacement.

    A t drawn twice in a row occurs once. The result may be empty.
    """
    rng = generator(seed, "sst", pair_id)
    count = int(rng.integers(0, 2 * k_mean + 1))
    draws = rng.integers(1, length + 1, size=count).tolist()
    return [t for i, t in enumerate(draws) if i == 0 or t != draws[i - 1]]


def official_cuts(length: int, seed: int, pair_id: str) -> list[int]:
    """Return the public code's cuts: k of 1..10 without replacement, then the full pair; ascending.

    ``length`` counts white-space words (`truncate_words`).
    """
    rng = generator(seed, "official", pair_id)
    count = min(int(rng.integers(1, OFFICIAL_MAX_CUTS + 1)), length)
    cuts = sorted((rng.permutation(length)[:count] + 1).tolist())
    return cuts if cuts[-1] == length else [*cuts, length]


def mean_cuts(preset: Preset, k_mean: int) -> float:
    """Return the mean number of cuts of a long response: K, or that of the public code."""
    return float(k_mean) if preset == "paper" else (1 + OFFICIAL_MAX_CUTS) / 2 + 1


def word_cut_to_token_cut(text: str, ends: Sequence[int], words: int) -> int:
    """Return how many tokens of ``text`` are within its first ``words`` white-space words.

    ``ends`` are the characters at which the tokens end. A token that extends past the last word is
    excluded, so that a prefix never holds a part of the next word.
    """
    end, start = 0, 0
    for word in text.split()[:words]:
        start = text.index(word, end)
        end = start + len(word)
    return sum(1 for token_end in ends if token_end <= end)


def same_prefix(
    chosen: Sequence[int], rejected: Sequence[int], chosen_cut: int, rejected_cut: int
) -> bool:
    """Return whether both prefixes of a partial pair are equal; such a pair gives no gradient."""
    return tuple(chosen[:chosen_cut]) == tuple(rejected[:rejected_cut])
