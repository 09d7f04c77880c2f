"""Partial pairs from preference pairs (section 4.1.1): where to cut both responses of a pair.

Token-Level Truncation (TLT) cuts everywhere, Stochastic Sampling Truncation (SST) at random
lengths. A seed and the pair's own id decide the draw, so that a pair's prefixes never depend on
batch, shard or worker. Pure.
"""

from collections.abc import Sequence
from typing import Literal

from orchestrator.randomness import generator

Truncation = Literal["sst", "tlt", "whole"]
Preset = Literal["paper", "official"]

OFFICIAL_MOST_CUTS = 10  # the public code draws k from 1 to 10 and ignores K


def token_level_cuts(length: int) -> list[int]:
    """TLT: t = 1..T, all of them, where T = ``length`` = max(|y_w|, |y_l|) in tokens."""
    return list(range(1, length + 1))


def stochastic_cuts(length: int, k_mean: int, seed: int, pair_id: str) -> list[int]:
    """SST(K): k ~ uniform integers 0..2K, then k draws t ~ uniform 1..T with replacement.

    A t drawn twice in a row is kept once. The result may be empty.
    """
    rng = generator(seed, "sst", pair_id)
    count = int(rng.integers(0, 2 * k_mean + 1))
    draws = rng.integers(1, length + 1, size=count).tolist()
    return [t for i, t in enumerate(draws) if i == 0 or t != draws[i - 1]]


def official_cuts(length: int, seed: int, pair_id: str) -> list[int]:
    """The public code's draw: k of 1..10, lengths without replacement, the full pair at the end.

    ``length`` counts white-space words there (`truncate_words`). Lengths come in rising order.
    """
    rng = generator(seed, "official", pair_id)
    count = min(int(rng.integers(1, OFFICIAL_MOST_CUTS + 1)), length)
    cuts = sorted((rng.permutation(length)[:count] + 1).tolist())
    return cuts if cuts[-1] == length else [*cuts, length]


def mean_cuts(preset: Preset, k_mean: int) -> float:
    """How many cuts SST draws of a long response, on average: K, or what the public code draws."""
    return float(k_mean) if preset == "paper" else (1 + OFFICIAL_MOST_CUTS) / 2 + 1


def word_cut_to_token_cuts(text: str, offsets: Sequence[tuple[int, int]], words: int) -> int:
    """How many tokens of ``text`` lie within its first ``words`` white-space words.

    ``offsets`` are the tokens' character spans. A token that reaches past the last word is left
    out, so that a prefix never holds part of the next word.
    """
    end, start = 0, 0
    for word in text.split()[:words]:
        start = text.index(word, end)
        end = start + len(word)
    return sum(1 for _, stop in offsets if stop <= end)


def same_prefix(
    chosen: Sequence[int], rejected: Sequence[int], chosen_cut: int, rejected_cut: int
) -> bool:
    """Whether the two prefixes of a partial pair are the same tokens: such a pair says nothing."""
    return tuple(chosen[:chosen_cut]) == tuple(rejected[:rejected_cut])
