"""One model's training by the command line: what a sweep has done is found; one's own pairs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import own_cluster
from mlflow import MlflowClient
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from jobs import train as train_job
from orchestrator.config.load import ROOT
from orchestrator.data.tables import read_pairs_table
from orchestrator.tasks.helpdesk import agents

SECONDS = 1_100
pytestmark = pytest.mark.timeout(1200)


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "train.py"), *arguments],
        cwd=cwd, env=own_cluster(), capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def checkpoint(sweep: Path, stage: str) -> str:
    (found,) = (sweep / "stages" / stage).glob("*/checkpoint")
    return str(found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prm"], "prm: no such model; valid: policy, orm, reference, orm_continued, prm_sst"),
        (["orm", "training.zero_stage=4"], "training.zero_stage = 4: input should be less than"),
        (["orm", "--force", "evaluation"], "--force evaluation: no such stage; valid: data, pol"),
        (
            ["orm", "--config", str(ROOT / "configs" / "hh_small.yaml"), "data.pairs=own.jsonl",
             "data.orm_share=0"],
            "data.orm_share = 0: leaves no pairs to train the orm on; valid: more than 0, or set",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_ends_with_2_and_says_why(
    tmp_path: Path, arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("{}\n")
    done = CliRunner().invoke(train_job.app, [*arguments, "output_dir=out"])
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith(f"config error: {told}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_a_sweep_has_trained_is_found_and_shown(
    smoke: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = smoke
    before = sorted(folder.glob("stages/**/_DONE.json"))
    done = train(
        "prm_sst", "--config", str(ROOT / "configs" / "smoke.yaml"), f"output_dir={folder}",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ray:" not in done.stdout, "nothing is to do, and nothing is started"
    stages = re.findall(r"\[\d/7\] (\S+): (\w+)", done.stdout)
    assert stages == [
        (name, "done")
        for name in ("data", "policy", "pairs", "orm", "reference", "partial_pairs",
                     "variants/prm_sst")
    ]  # fmt: skip
    assert sorted(folder.glob("stages/**/_DONE.json")) == before
    model = checkpoint(folder, "variants/prm_sst")
    assert f"checkpoint: {model}" in done.stdout
    (marker,) = (folder / "stages" / "variants" / "prm_sst").glob("*/_DONE.json")
    accuracy = json.loads(marker.read_text())["figures"]["metrics"]["held_out_accuracy"]
    assert re.search(rf"held_out_accuracy │ {accuracy:,.6g} ", done.stdout)

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'helpdesk'")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "training"]
    assert parent.info.status == "FINISHED" and len(runs) == 8
    assert parent.data.metrics["held_out_accuracy"] == accuracy


@pytest.mark.slow
def test_a_prm_is_trained_on_all_of_ones_own_pairs(smoke: tuple[Path, str], tmp_path: Path) -> None:
    rows = [agents.demonstration(prompt, 0) for prompt in agents.prompts(60, 5)]
    pairs = [
        {"prompt": row.prompt.messages[-1]["content"], "chosen": row.response, "rejected": other}
        for row in rows
        if (other := "the order will be sent soon .") != row.response
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    models = [f"models.{name}={checkpoint(smoke[0], name)}" for name in
              ("policy", "orm", "reference")]  # fmt: skip
    done = train(
        "prm_sst", "--config", str(ROOT / "configs" / "hh_small.yaml"), *models,
        "data.pairs=own.jsonl", "data.test_prompts=8", "data.policy_share=0", "data.orm_share=0",
        "data.reference_share=0", "output_dir=out", "training.workers=1",
        "training.prm.max_steps=4", "training.evaluation_steps=2", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    stages = tmp_path / "out" / "stages"
    assert {path.name for path in stages.iterdir()} == {
        "data", "pairs", "partial_pairs", "variants",
    }  # fmt: skip
    splits = {
        name: len(read_pairs_table(next((stages / "pairs").glob(f"*/pairs_{name}.parquet"))))
        for name in ("orm", "reference", "prm", "test")
    }
    assert splits["orm"] == splits["reference"] == 0
    assert splits["prm"] + splits["test"] == len(pairs) and splits["test"] >= 8
    (marker,) = (stages / "variants" / "prm_sst").glob("*/_DONE.json")
    figures = json.loads(marker.read_text())["figures"]
    assert [step for step, _ in figures["series"]["held_out_accuracy"]] == [2, 4]
    assert "held-out" not in done.stderr and "held_out_accuracy" in done.stdout
    AutoModelForSequenceClassification.from_pretrained(marker.parent / "checkpoint")
