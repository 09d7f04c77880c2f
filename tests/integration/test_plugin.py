"""A package that is installed beside the project adds to its registries by entry points."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMOKE_SECONDS, own_cluster, smoke_command
from mlflow import MlflowClient

PACKAGE = ROOT / "tests" / "plugin_package"
ONLY = [f"search.{name}=null" for name in ("bon", "args", "tbs", "cbs", "cards")]


def installed() -> dict[str, str]:
    """An environment in which the package is installed."""
    path = os.pathsep.join([str(PACKAGE), str(ROOT)])
    return {**own_cluster(), "PYTHONPATH": path, "COLUMNS": "200"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=installed(), capture_output=True, text=True, timeout=SMOKE_SECONDS
    )


@pytest.mark.parametrize("file", ["method.py", "metric.py"])
def test_the_documentation_shows_its_files(file: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.S)
    assert (PACKAGE / "example_plugin" / file).read_text() in blocks


def test_its_method_is_in_the_help_and_its_fields_are_checked() -> None:
    shown = run(sys.executable, "jobs/decode.py", "--help")
    assert "longest" in shown.stdout, shown.stderr
    told = run(sys.executable, "jobs/full_sweep.py", "--dry-run", "search.longest={n: 0}")
    assert told.returncode == 2 and "search.longest.n = 0" in told.stderr
    other = run(sys.executable, "jobs/full_sweep.py", "--dry-run", "search.longest={m: 8}")
    assert other.returncode == 2 and "valid: name, prompts, n" in other.stderr


def test_without_the_package_there_is_no_such_method() -> None:
    command = [sys.executable, "jobs/full_sweep.py", "--dry-run", "search.longest={}"]
    done = subprocess.run(
        command, cwd=ROOT, env={**own_cluster(), "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=SMOKE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 2 and "search.longest = {}: unknown key" in done.stderr


@pytest.mark.slow
def test_a_sweep_runs_it_and_shows_it(tmp_path: Path) -> None:
    done = run(*smoke_command(tmp_path, *ONLY, "search.longest={n: 8}", "search.scorers=null"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    cells = {cell["method"]: cell for cell in summary["cells"]}
    assert cells["longest"]["scorer"] is None and cells["longest"]["parameters"]["n"] == 8
    assert cells["longest"]["metrics"]["pleases"]["count"] == cells["longest"]["prompts"]
    finished = [cells[name]["metrics"]["finished"]["value"] for name in ("longest", "base")]
    assert finished[0] >= finished[1]  # it prefers finished samples
    assert any(
        test["method"] == "longest" and test["metric"] == "pleases"
        for test in summary["comparisons"]
    )
    report = (tmp_path / "report.html").read_text()
    assert "longest" in report and "pleases" in report
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert any("pleases" in entry.data.metrics for entry in runs)
