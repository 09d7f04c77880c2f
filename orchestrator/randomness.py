"""Keyed randomness: every draw is decided by what it is for, never by worker, batch or order."""

import hashlib
import threading

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


class _Streams(threading.local):
    """A generator of each thread that is set to the beginning of one stream after another.

    A new one for each stream takes four times as long, most of it for a seed that nobody uses.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._key = self._state["state"]["key"]

    def begun(self, key: int) -> np.random.Generator:
        """As ``Generator(Philox(key=key))``; until the next one is begun."""
        self._key[1], self._key[0] = divmod(key, 2**64)
        self._bits.state = self._state
        return self._generator


_streams = _Streams()


def uniforms(key: int, count: int) -> np.ndarray:
    """The first ``count`` uniform numbers in [0, 1) of a stream, float64, shape (count,)."""
    return _streams.begun(key).random(count)
