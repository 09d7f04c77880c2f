"""SIGTERM and SIGHUP end a job as Ctrl-C does: the work is interrupted, and all is closed.

`ray job stop`, Slurm and Kubernetes send SIGTERM, a closed terminal SIGHUP.
"""

import signal
import threading
from types import FrameType

from jobs.command_line.exit_codes import SIGNALLED

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def interrupt_on_stop_signals() -> None:
    """Make the signals raise KeyboardInterrupt in the main thread.

    Called again after ``ray.init``, which installs its own handlers. A signal that the parent
    process ignores (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted_exit_code() -> int:
    """Return the exit code after a KeyboardInterrupt, as shells do: 128 + the signal's number."""
    return SIGNALLED + (_received[0] if _received else signal.SIGINT)


def _interrupt(number: int, _: FrameType | None) -> None:
    _received.append(number)
    if len(_received) == 1:  # another one does not interrupt the closing
        raise KeyboardInterrupt
