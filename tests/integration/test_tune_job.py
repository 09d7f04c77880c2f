"""Tuning with real Ray Tune: trials on the stages of a sweep, the best config, one that fails."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from conftest import own_cluster, own_ray
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from rich.console import Console

from jobs.tuning.log import TrialLog
from jobs.tuning.study import study_of
from jobs.tuning.trials import run_trials
from orchestrator.config.load import ROOT, load_config
from orchestrator.tracking.mlflow_tracker import Tracker
from orchestrator.tuning.options import TuningOptions

SECONDS = 900
SMOKE = ROOT / "configs" / "smoke.yaml"
SHARED = ["data", "policy", "pairs", "orm", "reference", "partial_pairs"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


def tune(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "tune.py"), "prm_sst", "--config", str(SMOKE)]
    return subprocess.run(
        [*command, *arguments, "output_dir=out", "training.prm.max_steps=8"],
        cwd=cwd, env=own_cluster(), capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def place_of(smoke: Path, folder: Path) -> Path:
    """A copy of the smallest sweep's stages, for trials to stand on."""
    shutil.copytree(smoke / "stages", folder / "out" / "stages")
    return folder / "out"


def trials_of(out: Path) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{out.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'helpdesk'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "tuning"]
    assert parent.info.status == "FINISHED"
    children = [r for r in runs if r.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.info.run_id]
    kinds = [run.data.tags["kind"] for run in children]
    assert kinds.count("stage") == len(SHARED)
    return {run.info.run_name: run for run in children if run.data.tags["kind"] == "trial"}


def test_three_learning_rates_are_tried_and_the_best_is_written(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    out = place_of(smoke[0], tmp_path)
    space = ["--space", "training.prm.learning_rate=loguniform(1e-4,1e-1)", "--trials", "3"]
    done = tune(*space, "--out", "best.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for number, name in enumerate(SHARED, 1):
        assert f"[{number}/6] {name}: done" in done.stdout
    assert len(re.findall(r"\[trial \d/3\] step 4, held_out_accuracy", done.stdout)) == 3

    runs = trials_of(out)
    assert set(runs) == {"trial_01", "trial_02", "trial_03"}
    rates = {}
    for name, run in runs.items():
        state = run.data.tags["outcome"]
        assert run.info.status == {"finished": "FINISHED", "stopped": "KILLED"}[state]
        rates[name] = float(run.data.params["training.prm.learning_rate"])
        (left,) = (out / "tune" / "trials").glob(f"{run.data.tags['key']}.json")
        known = json.loads(left.read_text())
        assert known["state"] == state and [p["step"] for p in known["evaluations"]] == [4]
        assert (out / "stages" / "variants" / "prm_sst" / run.data.tags["key"]).is_dir() == (
            state == "finished"
        )
    assert len(set(rates.values())) == 3
    ended = {n: r.data.metrics["held_out_accuracy"] for n, r in runs.items()
             if r.info.status == "FINISHED"}  # fmt: skip
    best = load_config(tmp_path / "best.yaml")
    top = [rates[name] for name in ended if ended[name] == max(ended.values())]
    assert best.training.prm.learning_rate in top
    rate = f"training.prm.learning_rate={best.training.prm.learning_rate}"
    assert best == load_config(SMOKE, ["output_dir=out", "training.prm.max_steps=8", rate])
    assert not (out / "ray_tune").exists() and not list(out.glob("ray_train/trials/*"))
    assert not list(out.glob("stages/variants/prm_sst/.*"))

    again = tune(*space, "--out", "again.yaml", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Ray:" not in again.stdout and again.stdout.count(": earlier run, ") == 3
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "best.yaml").read_text()
    assert set(trials_of(out)) == set(runs), "the same runs, and no more"


@pytest.fixture
def cluster() -> Iterator[None]:
    with own_ray():
        yield


def running() -> list[str]:
    """What actors of trials and of their training groups are alive."""
    names = ("run_trial", "ImplicitFunc", "TrainController", "RayTrainWorker", "TrainingQueue")
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [name for name in names if name in " ".join(process.cmdline())]
    return found


def held() -> float:
    """Logical CPUs that somebody has; Ray hears of the end of an actor a little later."""
    free: float = ray.available_resources().get("CPU", 0.0)
    return float(ray.cluster_resources()["CPU"]) - free


def test_a_trial_that_is_much_worse_is_stopped_and_leaves_nothing_behind(
    smoke: tuple[Path, str], tmp_path: Path, cluster: None
) -> None:
    out = place_of(smoke[0], tmp_path)
    request = TuningOptions(
        "prm_sst", ["training.prm.learning_rate=choice(0.5,0.001)"], 2, "held_out_loss", "min",
        1, "asha",
    )  # fmt: skip
    overrides = [f"output_dir={out}", "training.prm.max_steps=40"]
    study, _ = study_of(request, SMOKE, overrides)
    assert [list(trial.values.values()) for trial in study.trials] == [[0.001], [0.5]]
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tuning")
    log = TrialLog(
        study, tracker, tracker.start_sweep(study.key, "tune", {}, ""), Console(quiet=True)
    )
    run_trials(study, log)
    assert [log.outcomes[number].state for number in (1, 2)] == ["finished", "stopped"]
    assert log.outcomes[2].steps < 40
    deadline = time.monotonic() + 60
    while (running() or held() > 0) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert running() == []
    assert held() == 0
    assert not list(out.glob("stages/variants/prm_sst/.*"))


def test_a_trial_that_fails_is_told_and_the_others_go_on(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    models = []
    for name in ("policy", "orm", "reference"):
        (found,) = (smoke[0] / "stages" / name).glob("*/checkpoint")
        models.append(f"models.{name}={found}")
    good = json.loads((ROOT / "configs" / "deepspeed" / "default.json").read_text())
    wrong = {**good, "optimizer": {"type": "SGD", "params": {"betas": [0.9, 0.99]}}}  # not SGD's
    (tmp_path / "good.json").write_text(json.dumps({**good, "gradient_clipping": 0.5}))
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    out = tmp_path / "out"
    done = tune(
        "--space", "training.deepspeed=choice(good.json,wrong.json)", "--trials", "2",
        "--scheduler", "fifo", "training.workers=1", *models, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[3/3] partial_pairs" in done.stdout, "made once, before the trials"
    (failed,) = re.findall(r"\[trial \d/2\] failed: (.*)", done.stdout)
    assert failed.startswith("variants/prm_sst: ") and "betas" in failed
    assert len(re.findall(r"\[trial \d/2\] finished: ", done.stdout)) == 1
    assert load_config(out / "tune" / "prm_sst.yaml").training.deepspeed == "good.json"
    client = MlflowClient(f"sqlite:///{out.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'helpdesk'")
    runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]
