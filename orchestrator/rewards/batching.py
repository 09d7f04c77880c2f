"""Batches of sequences by length, with little padding and bounded memory."""

from collections.abc import Sequence

# Tokens of one forward, padding included. More is slower on a CPU, as it exceeds the CPU caches.
TOKENS_PER_BATCH = 4_096


def batches_by_length(lengths: Sequence[int], limit: int | None = None) -> list[list[int]]:
    """Return batches of sequence indices by length, each of at most ``limit`` padded tokens.

    A sequence longer than the limit is a separate batch. None: TOKENS_PER_BATCH.
    """
    max_tokens = TOKENS_PER_BATCH if limit is None else limit
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Sequence i is the longest so far, so its batch is padded to its length.
        if not batches or lengths[i] * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches
