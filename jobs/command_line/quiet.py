"""What libraries write beside us: progress bars and advice give way, what is wrong is shown.

Settings are read at import; what Ray's own C++ code writes to standard error is filtered by line.
"""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",  # workers fork after tokenizing
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
# Said of each pool of Ray Data: the driver holds what its actors were started with.
HARMLESS = ("has constructor arguments in the object store and max_restarts > 0",)
STDERR = 2  # its number in any process
LAST_LINES = 2.0  # seconds that the filter may take at the end
CARDS = ("/dev/nvidiactl", "/dev/kfd")  # NVIDIA's and AMD's


def _show_plugin_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Shows the error of another package's component as one sentence; exit code 2."""
    if kind.__name__ != "PluginError":
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(2)


def quieten(job: str) -> None:
    """Sets what the user has not set; ``job`` is the file of the job, ``__file__`` there.

    Exits with 2 if the job belongs to another copy of the project than the installed one, whose
    code would run in its place.
    """
    sys.excepthook = _show_plugin_error
    own, installed = Path(job).resolve().parents[1], Path(__file__).resolve().parents[2]
    if own != installed:
        print(
            f"{job}: belongs to {own}, and this Python has {installed} installed; valid: the"
            f" environment of {own}, or PYTHONPATH={own}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if not any(Path(card).exists() for card in CARDS):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed warns where it finds none


def filter_native_errors() -> None:
    """Leaves out lines in HARMLESS that native code writes to standard error.

    The filter is a process of its own, so that what a crash says last is shown. Python's own
    standard error goes past it. Where that is not the process's, or there is no grep, nothing is
    done.
    """
    grep = shutil.which("grep")
    try:
        own = sys.stderr.fileno() == STDERR
    except (AttributeError, OSError, ValueError):  # closed, or a test's
        own = False
    if grep is None or not own:
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
    with contextlib.suppress(subprocess.TimeoutExpired):  # what this process started may hold it
        reader.wait(LAST_LINES)
