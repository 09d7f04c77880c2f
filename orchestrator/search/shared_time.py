"""Wall time that several waves share while they run together: its seconds are counted once."""

import time


class SharedTime:
    """Wall time divided by the number of waves that run: what all of them spend sums up to it."""

    def __init__(self) -> None:
        self._running, self._spent, self._seen = 0, 0.0, time.perf_counter()

    def spent(self) -> float:
        """Seconds of each wave that has run all the while."""
        now = time.perf_counter()
        self._spent += (now - self._seen) / max(self._running, 1)
        self._seen = now
        return self._spent

    def change(self, waves: int) -> None:
        """So many waves begin (or, below zero, end)."""
        self.spent()
        self._running += waves
