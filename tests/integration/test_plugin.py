"""A package that is installed beside the project adds to its registries by entry points."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMOKE_SECONDS, own_cluster, smoke_command
from mlflow import MlflowClient
from support.reward_kinds import plugin_installed

from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec

PACKAGE = ROOT / "tests" / "plugin_package"
ONLY = [f"search.{name}=null" for name in ("args", "tbs", "cbs", "cards")]


def installed() -> dict[str, str]:
    """An environment in which the package is installed."""
    path = os.pathsep.join([str(PACKAGE), str(ROOT)])
    return {**own_cluster(), "PYTHONPATH": path, "COLUMNS": "200"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=installed(), capture_output=True, text=True, timeout=SMOKE_SECONDS
    )


@pytest.mark.parametrize(
    "file", ["method.py", "metric.py", "objective.py", "scorer.py", "task.py", "judge.py"]
)
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


def test_its_scorer_kind_is_in_the_help_and_its_options_are_checked(word_policy: str) -> None:
    for job in ("score", "decode"):
        shown = run(sys.executable, f"jobs/{job}.py", "--help")
        assert "log_ratio, likelihood;" in " ".join(shown.stdout.split()), shown.stderr
    likely = f"variants.likely={{checkpoint: {word_policy}, kind: likelihood, options: {{%s}}}}"
    for option, expected in {
        "temperature: 0": "variants.likely.options.temperature = 0: input should be greater than 0",
        "warmth: 1": "kind 'likelihood' has no option 'warmth'; valid: temperature",
    }.items():
        refused = run(sys.executable, "jobs/full_sweep.py", "--dry-run", likely % option)
        assert refused.returncode == 2 and expected in refused.stderr, refused.stderr
    command = [sys.executable, "jobs/full_sweep.py", "--dry-run", likely % "temperature: 2"]
    refused = run(*command, "variants.likely.step_tag=x")
    assert "a scorer of kind likelihood has no step tag" in refused.stderr, refused.stderr


@pytest.mark.slow
def test_its_scorer_kind_scores_a_file(word_policy: str, tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "scores.parquet"
    row = {"prompt": "my printer is broken", "response": "please wait"}
    rows.write_text(json.dumps(row))
    done = run(
        sys.executable, "jobs/score.py", "--input", str(rows), "--output", str(output),
        "--reward", word_policy, "--kind", "likelihood", "--option", "temperature=4",
        "--prefixes", "tlt", "--actors", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with plugin_installed():
        spec = ScorerSpec(word_policy, "likelihood", options={"temperature": 4})
        scorer = load_scorer(spec)
    text = scorer.chat.conversation([{"role": "user", "content": row["prompt"]}], row["response"])
    (expected,) = scorer.prefix_scores([text.prompt_ids], [text.response_ids], [[1, 2]])
    (scores,) = pq.read_table(output)["prefix_scores"].to_pylist()
    assert scores == pytest.approx(expected, abs=1e-4) and max(scores) < 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.longest={}", "search.longest = {}: unknown key"),
        ("variants.v.objective=ipo", "variants.v.objective = 'ipo': no such objective"),
        ("variants.v.kind=likelihood", "variants.v.kind = 'likelihood': no such kind of scorer"),
    ],
)
def test_without_the_package_they_do_not_exist(override: str, message: str) -> None:
    command = [sys.executable, "jobs/full_sweep.py", "--dry-run", override]
    done = subprocess.run(
        command, cwd=ROOT, env={**own_cluster(), "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=SMOKE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 2 and message in done.stderr


def store(folder: Path) -> str:
    return f"tracking.uri=sqlite:///{folder}/mlflow.db"


@pytest.mark.slow
def test_a_sweep_runs_it_and_shows_it(word_policy: str, tmp_path: Path) -> None:
    variants = [f"variants.{name}=null" for name in ("prm_tlt", "orm_continued")]
    variants += ["variants.prm_no_reference=null", "variants.ours={objective: ipo, beta: 0.2}"]
    likely = f"{{checkpoint: {word_policy}, kind: likelihood, options: {{temperature: 2}}}}"
    search = ["search.longest={n: 8}", f"variants.likely={likely}", "search.scorers=[likely]"]
    done = run(*smoke_command(tmp_path, *ONLY, *variants, *search, store(tmp_path)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    cells = {cell["method"]: cell for cell in summary["cells"]}
    assert cells["longest"]["scorer"] is None and cells["longest"]["parameters"]["n"] == 8
    assert cells["longest"]["metrics"]["pleases"]["count"] == cells["longest"]["prompts"]
    assert (cells["bon"]["scorer"], cells["bon"]["metrics"]["reward"]["value"] < 0) == ("likely", 1)
    assert {row["scorer"] for row in summary["agreement"]} >= {"likely", "orm"}
    finished = [cells[name]["metrics"]["finished"]["value"] for name in ("longest", "base")]
    assert finished[0] >= finished[1]  # it prefers finished samples
    assert any(
        test["method"] == "longest" and test["metric"] == "pleases"
        for test in summary["comparisons"]
    )
    ours = {model["name"]: model for model in summary["models"]}["ours"]
    assert ours["objective"] == "ipo" and ours["steps"] > 0 and ours["partial_pairs"] is None
    # Before the first step every log ratio is 0: (1 / (2 beta))^2 of each pair.
    assert ours["loss"][0][1] == pytest.approx(2.5**2, rel=1e-3)
    assert ours["loss"][-1][1] != ours["loss"][0][1]
    report = (tmp_path / "report.html").read_text()
    assert all(name in report for name in ("longest", "pleases", "ipo", "likely"))
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    assert any("pleases" in entry.data.metrics for entry in runs)
    assert "cells/bon/likely" in {entry.info.run_name for entry in runs}
    (training,) = [entry for entry in runs if "ours" in entry.info.run_name and
                   "held_out_loss" in entry.data.metrics]  # fmt: skip
    assert math.isfinite(training.data.metrics["final_loss"])


def test_the_help_of_a_sweep_lists_its_components() -> None:
    shown = " ".join(run(sys.executable, "jobs/full_sweep.py", "--help").stdout.split())
    assert "[key.sub=value ...]" in shown  # not taken for markup
    for component in ("counting", "brevity", "longest", "pleases", "ipo", "likelihood"):
        assert component in shown


def test_its_task_and_judge_are_checked() -> None:
    fields = "data={task: counting, pairs: 0}"
    wrong = run(sys.executable, "jobs/full_sweep.py", "--dry-run", fields)
    assert wrong.returncode == 2 and "data.pairs = 0" in wrong.stderr
    unknown = run(sys.executable, "jobs/full_sweep.py", "--dry-run", "data.task=adding")
    assert unknown.returncode == 2 and "helpdesk" in unknown.stderr and "counting" in unknown.stderr
    judge = "evaluation.judges=[{name: brevity, unfinished_words: -1}]"
    refused = run(sys.executable, "jobs/full_sweep.py", "--dry-run", judge)
    assert refused.returncode == 2 and "unfinished_words = -1" in refused.stderr
    other = run(sys.executable, "jobs/full_sweep.py", "--dry-run", "evaluation.judges=[kindness]")
    assert other.returncode == 2 and "no such judge; valid: the names brevity" in other.stderr


@pytest.mark.slow
def test_a_sweep_runs_its_task_and_its_judge(tmp_path: Path) -> None:
    data = "data={task: counting, demonstrations: 300, pairs: 60, test_prompts: 12}"
    judge = "evaluation.judges=[brevity]"
    done = run(*smoke_command(tmp_path, *ONLY[1:], data, judge, store(tmp_path)))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["task"] == "counting"
    for cell in summary["cells"]:
        metrics = cell["metrics"]
        assert 0 <= metrics["all_right"]["value"] <= 1 and "wrong_numbers" in cell["counts"]
        assert metrics["win_tie"] is not None and metrics["win_tie_brevity"] is not None
        if cell["method"] == "base":
            assert metrics["win_tie_brevity"]["value"] == 1
    assert {row["measure"] for row in summary["agreement"]} >= {"AR_RM-HP", "prefix_accuracy"}
    report = (tmp_path / "report.html").read_text()
    assert "all right" in report and "win-tie (brevity)" in report
    runs = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["1"])
    names = {name for entry in runs for name in entry.data.metrics}
    assert {"all_right", "win_tie_brevity"} <= names
