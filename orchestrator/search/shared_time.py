"""Wall time that batchers share while they run at once, so that each second counts once."""

import time


class SharedTime:
    """Wall time divided by the number of running batchers; their shares sum up to it."""

    def __init__(self) -> None:
        self._running, self._spent, self._updated = 0, 0.0, time.perf_counter()

    def spent(self) -> float:
        """Return the seconds so far of a batcher that has run from the beginning."""
        now = time.perf_counter()
        self._spent += (now - self._updated) / max(self._running, 1)
        self._updated = now
        return self._spent

    def change(self, batchers: int) -> None:
        """Change the number of running batchers by ``batchers``."""
        self.spent()
        self._running += batchers
