"""Wall time that several batchers share while they run together: its seconds are counted once."""

import time


class SharedTime:
    """Wall time divided by the number of running batchers: what all of them spend sums up to it."""

    def __init__(self) -> None:
        self._running, self._spent, self._seen = 0, 0.0, time.perf_counter()

    def spent(self) -> float:
        """Seconds of each batcher that has run all the while."""
        now = time.perf_counter()
        self._spent += (now - self._seen) / max(self._running, 1)
        self._seen = now
        return self._spent

    def change(self, batchers: int) -> None:
        """So many batchers start (or, below zero, end)."""
        self.spent()
        self._running += batchers
