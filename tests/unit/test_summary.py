"""The summary's models: each by its own objective, those that are not trained in the run too."""

from pathlib import Path
from typing import Any

import pytest

from jobs.sweep.plan import Plan
from orchestrator.config.load import load_config
from orchestrator.report.entries import ModelEntry
from orchestrator.report.summary import model_rows
from orchestrator.stages.store import Store

VARIANTS = [
    *(f"variants.{name}.objective={name}" for name in ("dpo", "nca", "kto", "ce")),
    "variants.step_ratio={objective: dpo, aggregation: min, step_delimiter: .}",
]


def marker(stage: str, **metrics: float) -> dict[str, Any]:
    """What a training leaves; a stage that trains nothing has no loss."""
    named = {"steps": 9, "rows": 20, "partial_pairs": 30, "train_seconds": 1.5, "final_loss": 0.7}
    return {
        "stage": stage,
        "figures": {"metrics": {**named, **metrics}, "series": {"loss": [[9, 0.7]]}},
    }


def models(folder: Path, *overrides: str) -> dict[str, ModelEntry]:
    plan = Plan(load_config(None, overrides), Store(str(folder)))
    stages = [step.stage.name for step in plan.steps if step.stage.keeps_checkpoint]
    markers = [marker(stage) for stage in stages]
    markers.append({"stage": "pairs", "figures": {"metrics": {"pairs": 3}}})
    accuracy = {"orm": {"value": 0.6}, "ratio": {"value": 0.5}, "given": {"value": 0.4}}
    names = [name for name in plan.models if name != "policy"]
    rows = model_rows(plan.config, names, markers, accuracy)  # type: ignore[arg-type]
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def test_every_trained_model_is_named_by_its_own_objective(tmp_path: Path) -> None:
    objectives = {n: row["objective"] for n, row in models(tmp_path, *VARIANTS).items()}
    trained = ("orm", "reference", "orm_continued", "prm_sst", "prm_tlt", "prm_no_reference")
    assert objectives == {
        "policy": "language_modelling", **dict.fromkeys(trained, "bradley_terry"),
        "dpo": "dpo", "nca": "nca", "kto": "kto", "ce": "ce", "step_ratio": "dpo",
    }  # fmt: skip


def test_only_models_trained_on_cuts_have_a_number_of_partial_pairs(tmp_path: Path) -> None:
    by_name = models(tmp_path, *VARIANTS)
    assert {n for n, row in by_name.items() if row["partial_pairs"] is None} == {
        "policy", "dpo", "nca", "kto", "ce", "step_ratio",
    }  # fmt: skip


def test_models_that_are_not_trained_are_rows_without_a_training(
    word_policy: str, word_reward: str, tmp_path: Path
) -> None:
    by_name = models(
        tmp_path, f"models.orm={word_reward}",
        f"variants.ratio={{objective: density_ratio, base: {word_policy}}}",
        f"variants.log_ratio={{checkpoint: {word_policy}, base: {word_policy}, kind: log_ratio}}",
        f"variants.implicit={{objective: kto, checkpoint: {word_policy}}}",
        f"variants.given.checkpoint={word_reward}",
    )  # fmt: skip
    untrained = {"ratio": "density_ratio", "log_ratio": "density_ratio", "implicit": "kto",
                 "given": None, "orm": None}  # fmt: skip
    for name, objective in untrained.items():
        row = by_name[name]
        assert row["objective"] == objective
        assert row["steps"] is row["final_loss"] is row["seconds"] is None and row["loss"] == []
    assert by_name["ratio"]["pair_accuracy"] == {"value": 0.5}
    assert by_name["prm_sst"]["steps"] == 9


@pytest.mark.parametrize("name", ["policy", "reference"])
def test_a_given_model_has_no_objective_that_is_known(
    name: str, word_policy: str, word_reward: str, tmp_path: Path
) -> None:
    given = {"policy": word_policy, "reference": word_reward}[name]
    by_name = models(tmp_path, f"models.{name}={given}")
    assert ("policy" in by_name) == (name == "reference")
    assert name == "policy" or by_name["reference"]["objective"] is None
