"""Release of memory between trainings of one process.

The process of a training worker lives as long as the sweep. Memory that it holds after a training
is not available to the engines on the same machine or GPU.
"""

import ctypes
import gc

import torch


def free_memory() -> None:
    """Collect garbage, and return free memory to the operating system and to the GPU.

    DeepSpeed's engine is part of reference cycles, so weights, gradients and optimizer state stay
    until the collector runs. glibc keeps freed memory up to its trim threshold, and torch keeps all
    memory that it allocated on a GPU.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
    if trim is not None:
        trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
