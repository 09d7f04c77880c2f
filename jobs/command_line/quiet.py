"""Keep libraries quiet: no progress bars and no advice, but errors are shown.

Libraries read the settings at import. Harmless lines of Ray's C++ code on standard error are
filtered.
"""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",  # workers fork after tokenizing
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
# Ray writes this for each actor pool of Ray Data.
HARMLESS = ("has constructor arguments in the object store and max_restarts > 0",)
STDERR = 2  # the file descriptor
EXIT_SECONDS = 2.0  # time limit of the filter at exit
GPUS = ("/dev/nvidiactl", "/dev/kfd")  # devices of NVIDIA and AMD


def _show_plugin_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show the error of another package's component as one sentence; exit code 2."""
    if kind.__name__ != "PluginError":
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)


def quieten(job: str) -> None:
    """Set the environment variables that the user has not set.

    Exits with code 2 if the job belongs to another copy of the project than the installed one,
    since the code of the installed copy would run.

    Args:
        job: ``__file__`` of the job.
    """
    sys.excepthook = _show_plugin_error
    project, installed = Path(job).resolve().parents[1], Path(__file__).resolve().parents[2]
    if project != installed:
        print(
            f"{job}: belongs to {project}, but this Python imports {installed}; valid: the"
            f" environment of {project}, or PYTHONPATH={project}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not any(Path(gpu).exists() for gpu in GPUS):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed warns


def filter_native_errors() -> None:
    """Filter the lines in HARMLESS that native code writes to standard error.

    The filter is a separate process, so that the last lines of a crash are shown. Python's
    ``sys.stderr`` bypasses it. Does nothing if ``sys.stderr`` is redirected or there is no grep.
    """
    grep = shutil.which("grep")
    try:
        is_stderr = sys.stderr.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # closed, or replaced by a test
        is_stderr = False
    if grep is None or not is_stderr:
        return
    sys.stderr.flush()
    real = os.dup(STDERR)
    sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    patterns = [word for text in HARMLESS for word in ("-e", text)]
    reader = subprocess.Popen(
        [grep, "-a", "-v", "-F", "--line-buffered", *patterns],
        stdin=subprocess.PIPE, stdout=real, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), STDERR)
    reader.stdin.close()
    atexit.register(_unfilter, real, reader)


def _unfilter(real: int, reader: subprocess.Popen[bytes]) -> None:
    os.dup2(real, STDERR)
    with contextlib.suppress(subprocess.TimeoutExpired):  # child processes may keep the pipe open
        reader.wait(EXIT_SECONDS)
