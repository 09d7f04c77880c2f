"""A sweep that is sent a stop signal: its runs are closed, and nothing of it stays."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import own_cluster, run_smoke, smoke_command
from test_full_sweep import runs

SECONDS = 600
STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * SECONDS)]


@pytest.fixture
def not_ignored() -> Iterator[None]:
    """These tests may run in the background of a shell, which ignores signals for its children."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOP}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stopped(folder: Path, number: signal.Signals, line_holds: str) -> tuple[int, str, list[int]]:
    """Signals a sweep in the stage after a line; its exit code, output, and processes left."""
    log = folder.with_name("log")
    with log.open("w") as output:
        driver = subprocess.Popen(
            smoke_command(folder), cwd=folder.parent, env=own_cluster(),
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    deadline = time.monotonic() + SECONDS
    while line_holds not in log.read_text():
        assert time.monotonic() < deadline and driver.poll() is None, log.read_text()
        time.sleep(0.2)
    time.sleep(3)
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    code = driver.wait(timeout=SECONDS)
    _, alive = psutil.wait_procs(processes, timeout=60)
    return code, log.read_text(), [process.pid for process in alive]


@pytest.mark.parametrize("number", STOP)
def test_a_stop_signal_ends_a_training_with_one_line_and_nothing_left(
    number: signal.Signals, tmp_path: Path, not_ignored: None
) -> None:
    folder = tmp_path / "out"
    code, output, alive = stopped(folder, number, "] data: ")
    assert code == 128 + number, output
    assert output.splitlines()[-1] == "interrupted: run the same command again to resume"
    assert "Traceback" not in output and "SIGTERM received" not in output
    assert alive == []
    statuses = {run.info.run_name: run.info.status for run in runs(folder)}
    assert statuses.pop("data") == "FINISHED"
    assert set(statuses.values()) == {"KILLED"}


def test_after_a_kill_the_next_start_closes_the_runs_and_goes_on(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    code, output, _ = stopped(folder, signal.SIGKILL, "] data: ")
    assert code == -signal.SIGKILL, output
    assert "RUNNING" in {run.info.status for run in runs(folder)}
    done = run_smoke(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert {run.info.status for run in runs(folder)} == {"FINISHED"}
