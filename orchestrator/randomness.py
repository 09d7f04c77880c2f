"""Keyed randomness: a draw depends only on its purpose, never on worker, batch or order."""

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

Key = str | int


def stream_key(*parts: Key) -> int:
    """Return a 64-bit key of the parts, e.g. (seed, prompt id, method, step, candidate).

    Equal parts give equal keys on every machine and in every process; the types count
    (1 and "1" are different parts).
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: Key) -> np.random.Generator:
    """Return a generator whose stream depends only on ``parts``."""
    return np.random.Generator(np.random.Philox(key=stream_key(*parts)))


class _Streams(threading.local):
    """A generator per thread, which is reset to the beginning of each requested stream.

    Creating a generator for each stream would take four times as long, mostly for an unused seed.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._key = self._state["state"]["key"]

    def begun(self, key: int) -> np.random.Generator:
        """Return a generator equal to ``Generator(Philox(key=key))``, valid until the next call."""
        self._key[1], self._key[0] = divmod(key, 2**64)
        self._bits.state = self._state
        return self._generator


_streams = _Streams()


def uniforms(key: int, count: int) -> np.ndarray:
    """Return the first ``count`` uniform numbers in [0, 1) of a stream, float64 (count,)."""
    return _streams.begun(key).random(count)


def first_uniforms(keys: Sequence[int]) -> np.ndarray:
    """Return the first number of each of N streams, (N,) float64: vectorized ``uniforms(key, 1)``.

    Starting a stream takes longer than drawing one number from it, and token-level search starts
    thousands at every step. Implements Philox4x64-10 (Salmon et al. 2011) as numpy does.
    """
    key = np.array(keys, np.uint64), np.zeros(len(keys), np.uint64)
    words = [np.full(len(keys), value, np.uint64) for value in (1, 0, 0, 0)]  # counter 1
    for number in range(_ROUNDS):
        high, low = zip(*map(_product, _MULTIPLIERS, words[::2]), strict=True)
        left, right = key[0] + _BUMPED[0][number], key[1] + _BUMPED[1][number]
        words = [high[1] ^ words[1] ^ left, low[1], high[0] ^ words[3] ^ right, low[0]]
    return (words[0] >> np.uint64(11)).astype(np.float64) * 2.0**-53


_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_BUMPS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_BUMPED = [np.arange(_ROUNDS, dtype=np.uint64) * bump for bump in _BUMPS]  # by round
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _product(factor: np.uint64, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the high and the low 64 bits of the 128-bit product."""
    with np.errstate(over="ignore"):
        low_low = (factor & _LOW) * (words & _LOW)
        middle = (factor >> _HALF) * (words & _LOW) + (low_low >> _HALF)
        other = (factor & _LOW) * (words >> _HALF) + (middle & _LOW)
        high = (factor >> _HALF) * (words >> _HALF) + (middle >> _HALF) + (other >> _HALF)
        return high, factor * words
