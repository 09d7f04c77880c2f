"""Keyed randomness: every draw is decided by what it is for, never by worker, batch or order."""

import hashlib

import numpy as np

Key = str | int


def stream_key(*parts: Key) -> int:
    """A 64-bit key of the given parts, e.g. (seed, prompt id, method, step, candidate).

    Equal parts give equal keys on every machine and in every process; the types count
    (1 and "1" are different parts).
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: Key) -> np.random.Generator:
    """A generator whose stream is decided by ``parts`` alone."""
    return np.random.Generator(np.random.Philox(key=stream_key(*parts)))


def uniforms(key: int, count: int) -> np.ndarray:
    """The first ``count`` uniform numbers in [0, 1) of a stream, float64, shape (count,)."""
    return np.random.Generator(np.random.Philox(key=key)).random(count)
