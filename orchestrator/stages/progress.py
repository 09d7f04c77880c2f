"""Progress of a stage: its name, finished rows, rate and remaining time.

A bar on a terminal; a line every few seconds in a log.
"""

import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)  # fmt: skip

SECONDS_BETWEEN_LINES = 5.0


class ProgressBar:
    """Shows the progress of one stage. ``update`` may be called for every row.

    Args:
        console: shows the progress.
        label: name of the stage, e.g. "[7/31] orm".
        total: number of rows; None while unknown.
        unit: what rows are, e.g. "steps".
    """

    def __init__(self, console: Console, label: str, total: int | None, unit: str) -> None:
        self._console, self._label, self._unit, self._total = console, label, unit, total
        self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0
        self._first: tuple[float, int] | None = None

    def __enter__(self) -> "ProgressBar":
        if self._console.is_terminal:
            label, rate = "{task.description}", "{task.fields[rate]}"
            self._bar = Progress(
                TextColumn(label, markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn(self._unit), TextColumn(rate, markup=False), TimeElapsedColumn(),
                TimeRemainingColumn(), console=self._console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(self._label, total=self._total, rate="")
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Set the number of finished rows, and the total unless None."""
        self._total = total if total is not None else self._total
        self._done = done
        now = time.monotonic()
        # The rate counts from the first update on, without the start of the stage.
        first_time, first_rows = self._first = self._first or (now, done)
        rate = (done - first_rows) / max(now - first_time, 1e-9)
        if self._bar is not None and self._task is not None:
            text = f"{rate:,.1f}/s {note}"
            self._bar.update(self._task, completed=done, total=self._total, rate=text)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(self._line(done, rate, note), highlight=False)
            sys.stdout.flush()

    def advance(self, rows: int = 1, note: str = "") -> None:
        """Add finished rows."""
        self.update(self._done + rows, note=note)

    def _line(self, done: int, rate: float, note: str) -> str:
        left = ""
        if self._total and rate > 0:
            left = f", {max(self._total - done, 0) / rate:,.0f} s left"
        of = f" of {self._total:,}" if self._total else ""
        return f"{self._label}: {done:,}{of} {self._unit}, {rate:,.1f}/s{left} {note}".rstrip()
