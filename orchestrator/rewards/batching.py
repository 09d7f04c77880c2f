"""Texts in batches by length, so that little is padded and no batch outgrows the memory."""

from collections.abc import Sequence

# One forward's tokens, padding included; more is slower on a CPU, whose caches it leaves.
TOKENS_PER_BATCH = 4_096


def batches_by_length(lengths: Sequence[int], limit: int | None = None) -> list[list[int]]:
    """Numbers of texts by rising length, in batches of at most ``limit`` padded tokens.

    A text that is longer than the limit is a batch of its own; None is TOKENS_PER_BATCH.
    """
    most = TOKENS_PER_BATCH if limit is None else limit
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # The text in hand is the longest so far: the batch is padded to it.
        if not batches or lengths[i] * (len(batches[-1]) + 1) > most:
            batches.append([])
        batches[-1].append(i)
    return batches
