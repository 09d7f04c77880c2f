"""What jobs with one input file and one output share: checks of paths, lock, errors, exit codes."""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout
from rich.console import Console

from jobs.command_line.console import job_console
from jobs.command_line.exit_codes import BAD_CONFIG, FAILED
from orchestrator.config.load import ConfigError
from orchestrator.data.files import BadFile
from orchestrator.stages.output_folder import permanent_output_dir

LOCK_SECONDS = 0.5  # a run that is ending releases the lock within it
EXCEPTION_CLASS = re.compile(r"^(?:\w+\.)+\w+: ")  # at the start of a traceback's last line
CHAINED = "The above exception was the direct cause"  # in Python's tracebacks
TRACEBACK = re.compile(r'^(Traceback\b|\s+File ")|\bray::', re.MULTILINE)


def file_job(
    name: str,
    option: str,
    path: str,
    suffixes: Sequence[str],
    run: Callable[[Path, Console], int],
) -> int:
    """Run a job and return its exit code: 2 for a wrong option.

    Args:
        name: name of the job.
        option: the option that names the output.
        path: the output.
        suffixes: suffixes of output files; a path with another suffix is a folder.
        run: runs the job for the output's path and returns an exit code.
    """
    console = job_console()
    lasting, moved = permanent_output_dir(path, name, Path.cwd())
    try:
        if "://" in lasting:
            raise ConfigError(f"{option} = {lasting!r}: a URI is not supported; {_valid(suffixes)}")
        if moved:
            console.print(moved, highlight=False)
            Path(lasting).parent.mkdir(parents=True, exist_ok=True)
        check_output_path(option, Path(lasting), suffixes)
        return run(Path(lasting), console)
    except ConfigError as error:
        print_error(f"error: {error}")
        return BAD_CONFIG


def failed(error: BaseException) -> int:
    """Print why a job failed and how to resume it; return the exit code."""
    print_error(f"failed: {cause(error)}")
    print_error("finished shards are kept: fix the cause and run the same command again")
    return FAILED


def check_rows_file(option: str, source: str, suffixes: Sequence[str], valid: str) -> None:
    """Check that a file of rows exists.

    Raises:
        ConfigError: it does not exist, cannot be looked up, or has an unknown format.
    """
    problem = ""
    if not source.endswith(tuple(suffixes)):
        problem = "unknown format"
    else:
        try:
            filesystem, name = fsspec.core.url_to_fs(source)
            problem = "" if filesystem.isfile(name) else "no such file"
        except Exception as error:  # the exception types depend on the file system of the URI
            problem = f"cannot be looked up: {cause(error)}"
    if problem:
        raise ConfigError(f"{option} = {source!r}: {problem}; valid: {valid}")


def check_output_path(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Check that an output folder or file can be written; creates nothing.

    Raises:
        ConfigError: it cannot; the message says why.
    """
    try:
        problem = _output_problem(path, suffixes)
    except (OSError, ValueError) as error:  # also a name that is too long or contains NUL
        problem = f"cannot be written: {getattr(error, 'strerror', None) or error}"
    if problem:
        raise ConfigError(f"{option} = {str(path)!r}: {problem}; {_valid(suffixes)}")


def _output_problem(path: Path, suffixes: Sequence[str]) -> str:
    is_folder, is_file = path.is_dir(), path.suffix in suffixes
    if is_file and is_folder:
        return "is a folder, but has the suffix of a file"
    if not is_file and not is_folder:
        if path.suffix[1:].isalpha():
            return f"files of the format {path.suffix} cannot be written"
        if path.exists():
            return "is a file"
    if not path.parent.is_dir():
        return f"no such folder: {path.parent}"
    with tempfile.TemporaryFile(dir=path if is_folder else path.parent):
        return ""


def _valid(suffixes: Sequence[str]) -> str:
    return f"valid: a local folder, or a file that ends with {' or '.join(suffixes)}; its parent" \
        " folder must exist"  # fmt: skip


@contextmanager
def locked(folder: Path, option: str, path: Path) -> Iterator[None]:
    """Hold the lock of an output folder while the block runs.

    The lock is a file next to the folder, since the folder of an output file is deleted at the end.

    Raises:
        ConfigError: another run holds the lock, or the file system has no locks.
    """
    file = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(file, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{option} = {str(path)!r}: another run is writing there; wait until it ends, or choose"
            " another path"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{option} = {str(path)!r}: {file} cannot be locked: {error.strerror}; valid: a path on"
            " a file system with locks, in a folder that you may write to"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before the release: a waiting run creates a new file
        lock.release()


@contextmanager
def bad_file_as_config_error(option: str, source: str) -> Iterator[None]:
    """Convert a BadFile of the block to a ConfigError that names the option.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        yield
    except BadFile as error:
        raise ConfigError(f"{option} = {source!r}: {error.reason}") from error


def cause(error: BaseException) -> str:
    """Return what went wrong in one line; of a traceback or a Ray error the last line."""
    text = str(error).split(CHAINED)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    is_ray = any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)
    if is_ray or TRACEBACK.search(text):
        return EXCEPTION_CLASS.sub("", lines[-1])
    return " ".join(lines)


def print_error(text: str) -> None:
    """Print an error to standard error."""
    job_console(stderr=True).print(text, style="red", soft_wrap=True)
