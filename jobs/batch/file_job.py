"""What jobs have in common that make one output of one file: alone there, exit codes, errors."""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout
from rich.console import Console

from jobs.sweep.main import BAD_CONFIG, INTERRUPTED, LOG_WIDTH
from orchestrator.config.load import ConfigError
from orchestrator.data.files import BadFile
from orchestrator.stages.output_folder import lasting_output_dir

LOCK_SECONDS = 0.5  # a run that is ending lets go within it
RAISED = re.compile(r"^(?:\w+\.)+\w+: ")  # the exception's class, as a traceback names it
FOLLOWS = "The above exception was the direct cause"  # Python's own words


def file_job(
    name: str,
    option: str,
    place: str,
    suffixes: Sequence[str],
    run: Callable[[Path, Console], int],
) -> int:
    """Runs a job; gives its exit code: 2 for options that cannot be, 130 for an interrupt.

    Args:
        name: of the job.
        option: that says where it writes.
        place: where.
        suffixes: of the files that it writes; any other place is a folder.
        run: does it, given the place, and gives an exit code.
    """
    console = Console()
    console = console if console.is_terminal else Console(width=LOG_WIDTH)
    lasting, moved = lasting_output_dir(place, name, Path.cwd())
    try:
        if "://" in lasting:
            raise ConfigError(f"{option} = {lasting!r}: {_valid(suffixes)}, on a disk")
        if moved:
            console.print(moved, highlight=False, markup=False)
            Path(lasting).parent.mkdir(parents=True, exist_ok=True)
        check_place(option, Path(lasting), suffixes)
        return run(Path(lasting), console)
    except ConfigError as error:
        say(f"error: {error}")
        return BAD_CONFIG
    except KeyboardInterrupt:
        console.print("interrupted: run the same command again to resume")
        return INTERRUPTED


def check_rows_file(option: str, source: str, suffixes: Sequence[str], valid: str) -> None:
    """Checks that a file of rows is there.

    Raises:
        ConfigError: it is not, its format is not known, or no one can say.
    """
    wrong = ""
    if not source.endswith(tuple(suffixes)):
        wrong = "its format is not known"
    else:
        try:
            filesystem, name = fsspec.core.url_to_fs(source)
            wrong = "" if filesystem.isfile(name) else "no such file"
        except Exception as error:  # each kind of URI has errors of its own
            wrong = f"cannot be looked up: {cause(error)}"
    if wrong:
        raise ConfigError(f"{option} = {source!r}: {wrong}; valid: {valid}")


def check_place(option: str, place: Path, suffixes: Sequence[str]) -> None:
    """Checks that a folder, or a file of one of the formats, can be written; makes nothing.

    Raises:
        ConfigError: it cannot; the message says why.
    """
    try:
        why = _why_not(place, suffixes)
    except (OSError, ValueError) as error:  # also a name that is too long, or holds NUL
        why = f"cannot be written: {getattr(error, 'strerror', None) or error}"
    if why:
        raise ConfigError(f"{option} = {str(place)!r}: {why}; {_valid(suffixes)}")


def _why_not(place: Path, suffixes: Sequence[str]) -> str:
    is_folder, is_file = place.is_dir(), place.suffix in suffixes
    if is_file and is_folder:
        return "is a folder, and named as a file"
    if not is_file and not is_folder:
        if place.suffix[1:].isalpha():
            return f"no file of the format {place.suffix} is written"
        if place.exists():
            return "is a file"
    if not place.parent.is_dir():
        return f"no such folder: {place.parent}"
    with tempfile.TemporaryFile(dir=place if is_folder else place.parent):
        return ""


def _valid(suffixes: Sequence[str]) -> str:
    return (
        f"valid: a folder, or a file that ends with {' or '.join(suffixes)}, in one that is there"
    )


@contextmanager
def alone(folder: Path, option: str, place: Path) -> Iterator[None]:
    """Holds a folder, by a lock beside it that goes with the run: an output file ends the folder.

    Raises:
        ConfigError: another run holds it, or it cannot be locked.
    """
    file = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(file, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{option} = {str(place)!r}: another run is writing there; wait, or choose another"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{option} = {str(place)!r}: {file} cannot be locked: {error.strerror}; valid: a place"
            " on a disk that has locks, in a folder of your own"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: who waits for it makes a new one
        lock.release()


@contextmanager
def readable(option: str, source: str) -> Iterator[None]:
    """Turns a file that cannot be read into a wrong option.

    Raises:
        ConfigError: of a BadFile of the block.
    """
    try:
        yield
    except BadFile as error:
        raise ConfigError(f"{option} = {source!r}: {error.why}") from error


def cause(error: BaseException) -> str:
    """What went wrong, in a line: Ray's errors are a worker's traceback, then their own advice."""
    text = str(error).split(FOLLOWS)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return RAISED.sub("", lines[-1]) if lines else type(error).__name__


def say(text: str) -> None:
    """Shows an error."""
    Console(stderr=True).print(text, style="red", markup=False, soft_wrap=True)
