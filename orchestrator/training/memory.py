"""Giving memory back between trainings of one process.

The process of a training group lives as long as the sweep: what it holds after a training is
missing to the engines that search on the same machine or card.
"""

import ctypes
import gc

import torch


def free_memory() -> None:
    """Frees what is no longer used, and returns it to the system and to the card.

    DeepSpeed's engine is in reference cycles, so weights, gradients and optimizer state stay until
    the collector runs. glibc keeps freed memory up to its trim threshold, torch all that it
    allocated on a card.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
