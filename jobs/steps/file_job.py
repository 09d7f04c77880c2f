"""What jobs have in common that make one output of one file: alone there, exit codes, errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from jobs.steps.main import BAD_CONFIG, INTERRUPTED, LOG_WIDTH
from orchestrator.config.load import ConfigError
from orchestrator.stages.places import lasting_output_dir

FOLLOWS = "The above exception was the direct cause"  # Python's own words


def file_job(
    name: str, option: str, place: str, valid: str, run: Callable[[Path, Console], int]
) -> int:
    """Runs a job; gives its exit code: 2 for options that cannot be, 130 for an interrupt.

    Args:
        name: of the job.
        option: that says where it writes.
        place: where.
        valid: what a place may be.
        run: does it, given the place, and gives an exit code.
    """
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    lasting, moved = lasting_output_dir(place, name, Path.cwd())
    try:
        if "://" in lasting:
            raise ConfigError(f"{option} = {lasting!r}: valid: {valid} on a disk")
        if moved:
            console.print(moved, highlight=False, markup=False)
        return run(Path(lasting), console)
    except ConfigError as error:
        say(f"error: {error}")
        return BAD_CONFIG
    except KeyboardInterrupt:
        console.print("interrupted: run the same command again, and it goes on from here")
        return INTERRUPTED


@contextmanager
def alone(folder: Path, option: str, place: Path) -> Iterator[None]:
    """Holds a folder, by a lock beside it: a single output file ends the folder.

    Raises:
        ConfigError: another run holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{option} = {str(place)!r}: another run is writing there; wait, or choose another"
        ) from None
    try:
        yield
    finally:
        lock.release()


def cause(error: BaseException) -> str:
    """What went wrong, in a line: Ray's errors are a worker's traceback, then their own advice."""
    text = str(error).split(FOLLOWS)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def say(text: str) -> None:
    """Shows an error."""
    Console(stderr=True).print(text, style="red", markup=False, soft_wrap=True)
