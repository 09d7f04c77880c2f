"""The main job killed with SIGKILL at three stages and run again, as if it never had been."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import own_cluster, run_smoke, smoke_command
from test_full_sweep import bytes_of, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

# What is printed last before the kill, and the seconds that the next stage then gets.
KILLS = (("] data: ", 8.0), ("] reference: ", 6.0), ("] cells/greedy/none: ", 0.05))
CHANGED_SHARE = 0.005  # of the responses may differ by float32 batch effects
PRINTED = 5e-3  # tables show two or three digits after the point


def killed_after(folder: Path, line_holds: str, seconds: float) -> list[str]:
    """Starts the sweep, ends its driver in the middle of a stage; gives what it had printed."""
    driver = subprocess.Popen(
        smoke_command(folder), cwd=folder.parent, env=own_cluster(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert driver.stdout is not None
    lines = []
    for line in driver.stdout:
        lines.append(line)
        if line_holds in line and not line.rstrip().endswith(": done"):
            time.sleep(seconds)
            os.kill(driver.pid, signal.SIGKILL)
            break
    assert driver.wait(timeout=600) == -signal.SIGKILL, "".join(lines)
    driver.stdout.close()
    return lines


def finished(folder: Path) -> dict[str, str]:
    """Hashes of the files of the stages whose marker is there."""
    markers = {str(m.parent.relative_to(folder)) for m in folder.glob("stages/**/_DONE.json")
               if ".partial" not in str(m)}  # fmt: skip
    return {
        name: digest
        for name, digest in bytes_of(folder).items()
        if any(name.startswith(f"{place}/") for place in markers)
    }


def cells(folder: Path) -> dict[str, dict[str, Any]]:
    summary = json.loads((folder / "summary.json").read_text())
    return {f"{cell['method']}/{cell['scorer'] or 'none'}": cell for cell in summary["cells"]}


def texts(folder: Path, cell: str) -> list[str]:
    (file,) = (folder / "stages" / "cells" / cell).glob("*/responses.parquet")
    return list(pq.read_table(file)["response"].to_pylist())


def test_three_kills_lose_nothing_and_change_nothing(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    kept: dict[str, str] = {}
    for line, seconds in KILLS:
        killed_after(folder, line, seconds)
        now = finished(folder)
        assert {name: now.get(name) for name in kept} == kept, "byte for byte as before"
        assert len(now) > len(kept)
        kept = now
    last = run_smoke(folder)
    assert last.returncode == 0, last.stdout[-4000:] + last.stderr[-4000:]
    now = finished(folder)
    assert {name: now.get(name) for name in kept} == kept
    assert [str(p) for p in folder.rglob(".*.partial")] == []

    undisturbed, resumed = cells(smoke[0]), cells(folder)
    assert set(undisturbed) == set(resumed)
    changed = total = 0
    for name in undisturbed:
        pairs = list(zip(texts(smoke[0], name), texts(folder, name), strict=True))
        different = sum(a != b for a, b in pairs)
        changed, total = changed + different, total + len(pairs)
        if not different:
            for metric, interval in undisturbed[name]["metrics"].items():
                other = resumed[name]["metrics"][metric]
                if isinstance(interval, dict):
                    for part in ("value", "low", "high"):
                        assert other[part] == pytest.approx(interval[part], abs=PRINTED), metric
    assert changed <= CHANGED_SHARE * total, f"{changed} of {total} responses differ"

    tracked = runs(folder)
    stages = [run.data.tags["stage"] for run in tracked if "stage" in run.data.tags]
    assert len(stages) == len(set(stages)) == len(tracked) - 1, "no second copy of any run"
    assert {run.info.status for run in tracked} == {"FINISHED"}
