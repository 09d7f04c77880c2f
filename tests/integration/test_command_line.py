"""The main job's command line: exit codes, messages, and that nothing starts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs import bench, full_sweep
from orchestrator.config.load import ROOT

SECONDS = 500


def sweep(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "full_sweep.py"), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=SECONDS,
        env={**os.environ, "PRM_ORCHESTRATOR_HOME": str(cwd)},
    )  # fmt: skip


def test_a_wrong_value_ends_with_2_and_one_message_before_anything_starts(tmp_path: Path) -> None:
    done = sweep("training.zero_stage=4", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "config error: training.zero_stage = 4: input should be less than or equal to 3"
    )
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_every_stage_with_its_key_and_makes_nothing(tmp_path: Path) -> None:
    config = str(ROOT / "configs" / "smoke.yaml")
    done = sweep("--config", config, "--dry-run", f"output_dir={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"│ (\S+) +│ ([0-9a-f]{16}) +│ to do", done.stdout))
    expected = {
        "data", "policy", "pairs", "orm", "reference", "partial_pairs", "samples", "calibration",
        "evaluation", "cells/base/none", "cells/greedy/none",
    }  # fmt: skip
    expected |= {f"variants/{name}" for name in
                 ("orm_continued", "prm_sst", "prm_tlt", "prm_no_reference")}  # fmt: skip
    expected |= {f"cells/{method}/{scorer}" for method in ("bon", "args", "tbs", "cbs", "cards")
                 for scorer in ("orm", "prm_sst")}  # fmt: skip
    assert expected <= set(rows), expected - set(rows)
    assert {name for name in rows if name not in expected} <= {
        f"agreement/{name.split('/')[-1]}" for name in rows
    }
    assert len(set(rows.values())) == len(rows)
    assert "Ray:" not in done.stdout and not (tmp_path / "out").exists()
    told = r"^training.precision auto is (float32|bfloat16): a .* takes "
    precision = re.search(told, done.stdout, re.M)
    assert precision is not None, done.stdout
    again = CliRunner().invoke(  # measured again, a busy machine may tell another precision
        full_sweep.app,
        ["--config", config, "--dry-run", f"output_dir={tmp_path}/out",
         f"training.precision={precision[1]}"],
        env={"COLUMNS": "100"},
    )  # fmt: skip
    same = dict(re.findall(r"│ (\S+) +│ ([0-9a-f]{16}) +│ to do", again.stdout))
    assert same == rows, "keys are the same in every process"
    assert re.search(r"^\d+ min to do, estimated from", again.stdout, re.M)


def test_more_workers_than_the_cluster_can_place_end_with_2(tmp_path: Path) -> None:
    arguments = ["training.workers=5000", f"output_dir={tmp_path}/out"]
    done = CliRunner().invoke(full_sweep.app, arguments)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("config error")]
    assert "training.workers = 5000" in line and re.search(r"valid: at most \d+ workers", line)
    assert not (tmp_path / "out" / "stages").exists()


def test_forcing_a_stage_that_is_none_ends_with_2_and_the_valid_names(tmp_path: Path) -> None:
    done = CliRunner().invoke(full_sweep.app, ["--force", "polcy", f"output_dir={tmp_path}/out"])
    assert done.exit_code == 2
    assert "--force polcy: no such stage; valid: data, policy, pairs" in done.stderr


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--config"]])
def test_a_wrong_option_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(full_sweep.app, arguments).exit_code == 2


def test_a_tracking_store_that_cannot_be_opened_is_told_before_ray_starts(tmp_path: Path) -> None:
    home = {"PRM_ORCHESTRATOR_HOME": str(tmp_path)}
    done = CliRunner().invoke(full_sweep.app, ["tracking.uri=nowhere://host"], env=home)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("config error: tracking.uri = nowhere://host: ")
    assert "Ray" not in done.stdout and list(tmp_path.iterdir()) == []


def test_a_benchmark_that_is_not_there_is_named_with_those_that_are() -> None:
    done = CliRunner().invoke(bench.app, ["rewards", "--only", "nothing"])
    assert done.exit_code == 2
    assert "nothing" in done.stderr and "tlt_closed" in done.stderr


@pytest.mark.slow
def test_the_benchmark_of_rewards_prints_its_results_as_a_line_of_json(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, str(ROOT / "jobs" / "bench.py"), "rewards", "--repeats", "1"]
    names = ["sst5_open", "train_tlt_open"]
    done = subprocess.run(
        [*command, *(part for name in names for part in ("--only", name)), "--json", str(file)],
        capture_output=True, text=True, timeout=2 * SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads(file.read_text())
    assert [result["name"] for result in found["results"]] == names
    for result in found["results"]:
        assert result["ours_s"] > 0 and result["other_s"] > 0 and result["ratio"] > 0
