"""Keyed randomness: every draw is decided by what it is for, never by worker, batch or order."""

import hashlib
import threading
from collections.abc import Sequence

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


def first_uniforms(keys: Sequence[int]) -> np.ndarray:
    """The first number of each of N streams, (N,) float64: ``uniforms(key, 1)``, all at once.

    A stream whose one number is wanted costs more to begin than to draw from, and token-level
    search begins thousands at every step. Philox4x64-10 (Salmon et al. 2011) as numpy has it.
    """
    key = np.array(keys, np.uint64), np.zeros(len(keys), np.uint64)
    words = [np.full(len(keys), value, np.uint64) for value in (1, 0, 0, 0)]  # numpy's first count
    for number in range(_ROUNDS):
        high, low = zip(*map(_product, _MULTIPLIERS, words[::2]), strict=True)
        left, right = key[0] + _BUMPED[0][number], key[1] + _BUMPED[1][number]
        words = [high[1] ^ words[1] ^ left, low[1], high[0] ^ words[3] ^ right, low[0]]
    return (words[0] >> np.uint64(11)).astype(np.float64) * 2.0**-53


_ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_BUMPS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_BUMPED = [np.arange(_ROUNDS, dtype=np.uint64) * bump for bump in _BUMPS]  # of each round
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def _product(factor: np.uint64, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The high and the low 64 bits of 128."""
    with np.errstate(over="ignore"):
        low_low = (factor & _LOW) * (words & _LOW)
        middle = (factor >> _HALF) * (words & _LOW) + (low_low >> _HALF)
        other = (factor & _LOW) * (words >> _HALF) + (middle & _LOW)
        high = (factor >> _HALF) * (words >> _HALF) + (middle >> _HALF) + (other >> _HALF)
        return high, factor * words
