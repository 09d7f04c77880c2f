"""Texts in batches by length, so that little is padded and no batch outgrows the memory."""

import math
from collections.abc import Sequence

# One forward's tokens, padding included; more is slower on a CPU, whose caches it leaves.
TOKENS_PER_BATCH = 4_096


def batches_by_length(
    lengths: Sequence[int], limit: int | None = None, padding: float = math.inf
) -> list[list[int]]:
    """Numbers of texts by rising length, in batches of at most ``limit`` padded tokens.

    A text that is longer than the limit is a batch of its own; None is TOKENS_PER_BATCH. At most
    ``padding`` tokens of a batch are padding.
    """
    most = TOKENS_PER_BATCH if limit is None else limit
    batches: list[list[int]] = []
    filled = 0  # tokens of the last batch
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # The text in hand is the longest so far: the batch is padded to it.
        padded = lengths[i] * (len(batches[-1]) + 1) if batches else math.inf
        filled += lengths[i]
        if padded > most or padded - filled > padding:
            batches.append([])
            filled = lengths[i]
        batches[-1].append(i)
    return batches
