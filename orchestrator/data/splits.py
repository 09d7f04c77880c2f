"""Splitting preference pairs by prompt, so that no split shares prompts with another.

The order of prompts is keyed by seed and prompt id: it does not depend on the file's order, and
added rows only shift the borders between splits.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from orchestrator.randomness import stream_key
from orchestrator.records import PreferencePair

REMAINDER = "prm"  # the split of all other prompts
TEST = "test"


def split_pairs(
    pairs: Sequence[PreferencePair], shares: Mapping[str, float], test_prompts: int, seed: int
) -> dict[str, list[PreferencePair]]:
    """Split pairs by ``prompt.prompt_id``; each split keeps the order of the pairs.

    Args:
        pairs: pairs of all splits.
        shares: share of the prompts outside the test by split (policy, orm, reference); 0: an
            empty split.
        test_prompts: prompts, not pairs, of the split ``test``; 0: an empty split.
        seed: seed of the order of prompts.

    Returns:
        the splits of ``shares``, then ``prm`` with the remaining prompts, and ``test``.

    Raises:
        ValueError: shares are negative or leave no prompts for ``prm``, or another split would be
            empty.
    """
    _check(shares, test_prompts)
    prompts = sorted({pair.prompt.prompt_id for pair in pairs}, key=lambda p: _order_key(seed, p))
    training_prompts = max(len(prompts) - test_prompts, 0)
    names = [TEST, *shares, REMAINDER]
    ends = [round(training_prompts * share) for share in accumulate(shares.values())]
    borders = [0, *(test_prompts + end for end in (0, *ends, training_prompts))]
    split_of = {
        prompt: name
        for name, (start, end) in zip(names, pairwise(borders), strict=True)
        for prompt in prompts[start:end]
    }
    splits: dict[str, list[PreferencePair]] = {name: [] for name in (*shares, REMAINDER, TEST)}
    for pair in pairs:
        splits[split_of[pair.prompt.prompt_id]].append(pair)
    sizes = {**shares, REMAINDER: 1, TEST: test_prompts}
    nonempty = [name for name in splits if sizes[name]]
    if training_prompts == 0 or not all(splits[name] for name in nonempty):
        raise ValueError(_too_few(splits, len(prompts), test_prompts))
    return splits


def _order_key(seed: int, prompt_id: str) -> tuple[int, str]:
    return stream_key(seed, "split", prompt_id), prompt_id


def _check(shares: Mapping[str, float], test_prompts: int) -> None:
    reserved = {REMAINDER, TEST} & set(shares)
    if reserved:
        raise ValueError(
            f"shares contain {sorted(reserved)}: test_prompts sets the size of test, and prm gets"
            " all"
            " remaining prompts"
        )
    if any(not share >= 0 for share in shares.values()) or not sum(shares.values()) < 1:
        raise ValueError(
            f"shares {dict(shares)}: each must be at least 0, and their sum less than 1"
        )
    if test_prompts < 0:
        raise ValueError(f"test_prompts is {test_prompts}: valid: at least 0")


def _too_few(
    splits: Mapping[str, Sequence[PreferencePair]], prompts: int, test_prompts: int
) -> str:
    counts = ", ".join(f"{name} {len(split)}" for name, split in splits.items())
    return (
        f"data.test_prompts = {test_prompts}: {prompts} prompts are too few for all splits, which"
        f" would have these numbers of pairs: {counts}; valid: a smaller data.test_prompts, other"
        " data.*_share values, or more pairs"
    )
