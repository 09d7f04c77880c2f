"""Writes to a store that may be away for a while: kept in order, and sent when it answers again.

A sweep takes days and must not end because its tracking server restarts. Independent of MLflow.
"""

import time
from collections import deque
from collections.abc import Callable

PAUSE_S = 30.0  # seconds without another attempt after a failed one, which itself takes seconds


class Outbox:
    """Sends writes in order.

    Args:
        is_temporary: whether an exception means that the store is away; others are raised.
        report: called with a sentence when the store stops to answer, and when it answers again.
        pause: seconds without another attempt after a failed one.
    """

    def __init__(
        self,
        is_temporary: Callable[[Exception], bool],
        report: Callable[[str], None],
        pause: float = PAUSE_S,
    ) -> None:
        self._is_temporary, self._report, self._pause = is_temporary, report, pause
        self._waiting: deque[Callable[[], object]] = deque()
        self._next_attempt = 0.0

    @property
    def is_delayed(self) -> bool:
        """Whether writes wait for the store."""
        return bool(self._waiting)

    def send(self, write: Callable[[], object]) -> None:
        """Do a write now, after those that wait; keep it if the store is away.

        Raises:
            Exception: the write failed for another reason.
        """
        self._waiting.append(write)
        if time.monotonic() >= self._next_attempt:
            self._attempt()

    def flush(self, seconds: float) -> int:
        """Send what waits, trying for up to ``seconds``; return the number of unsent writes."""
        end = time.monotonic() + seconds
        self._attempt()
        while self._waiting and time.monotonic() < end:
            time.sleep(min(1.0, self._pause))
            self._attempt()
        return len(self._waiting)

    def _attempt(self) -> None:
        was_delayed = self._next_attempt > 0
        while self._waiting:
            try:
                self._waiting[0]()
            except Exception as error:
                if not self._is_temporary(error):
                    self._waiting.popleft()
                    raise
                self._next_attempt = time.monotonic() + self._pause
                if not was_delayed:
                    reason = (str(error) or type(error).__name__).splitlines()[0]
                    self._report(f"the store does not answer ({reason}); the job goes on")
                return
            self._waiting.popleft()
        if was_delayed:
            self._next_attempt = 0.0
            self._report("the store answers again; all values are sent")
