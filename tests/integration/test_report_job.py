"""The command prm, and the report of a finished sweep written again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, own_cluster
from typer.testing import CliRunner

from jobs import report


def prm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *arguments], cwd=ROOT, capture_output=True, text=True,
        env={**own_cluster(), "COLUMNS": "160"}, timeout=600,
    )  # fmt: skip


def test_the_command_has_every_job() -> None:
    shown = prm("--help")
    assert shown.returncode == 0, shown.stderr
    for command in ("sweep", "train", "tune", "score", "decode", "bench", "report", "samples"):
        assert f" {command} " in shown.stdout
    told = prm("sweep", "seed=x")
    assert told.returncode == 2 and "config error: seed = 'x'" in told.stderr


def test_a_finished_sweep_is_shown_again(smoke: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(smoke[0] / "summary.json", tmp_path)
    done = CliRunner().invoke(report.app, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").read_text() == (smoke[0] / "report.html").read_text()
    assert list((tmp_path / "figures").iterdir())
    assert "Cells" in done.stdout and str(tmp_path / "report.html") in done.stdout


@pytest.mark.parametrize("text", [None, "{", "[]", json.dumps({"cells": 3})])
def test_what_is_no_summary_is_refused_and_nothing_is_written(
    text: str | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    done = CliRunner().invoke(report.app, [str(tmp_path)])
    assert done.exit_code == 2 and "config error: " in done.output, done.output
    assert str(tmp_path) in done.output and not (tmp_path / "report.html").exists()
