"""Step 9: summary.json, report.html and the figures, from what the stages left."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.sweep.plan import Plan
from jobs.sweep.sweep import Sweep
from orchestrator.config.load import to_yaml
from orchestrator.config.tree import Config
from orchestrator.config.unread import superseded
from orchestrator.data.rejects import reasons
from orchestrator.masking import mask_secrets
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.density_ratio import DensityRatio
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.objectives.objective import OBJECTIVES
from orchestrator.records import Reject

VERSIONS_SHOWN = ("ray", "torch", "transformers", "deepspeed", "mlflow", "pyarrow", "numpy")


def summarize(plan: Plan, evaluation: dict[str, Any], sweep_key: str) -> dict[str, Any]:
    """The whole summary: what the report shows and what summary.json holds."""
    sweep, config = plan.sweep, plan.sweep.config
    markers = [sweep.store.marker(step.stage) for step in plan.steps]
    partial = [m["figures"]["weights"] for m in markers if m["stage"] == "partial_pairs"]
    rejects = _rejects(plan)
    return {
        "task": config.data.task_name(),
        "name": config.name,
        "seed": config.seed,
        "sweep_key": sweep_key,
        "output_dir": sweep.store.remote or str(sweep.store.local),
        "position": config.scoring.position,
        "versions": _versions(),
        "seconds": sum(m["seconds"] for m in markers),
        "training_seeds": 1,
        "config_yaml": mask_secrets(to_yaml(config)),
        "premise": evaluation["premise"],
        "stages": [
            {
                "stage": m["stage"],
                "key": m["key"],
                "seconds": m["seconds"],
                "figures": m["figures"].get("metrics", {}),
            }
            for m in markers
        ],
        "models": _models(sweep, markers, evaluation["pair_accuracy"]),
        "weights": partial[0] if partial else [],
        "cells": evaluation["cells"],
        "comparisons": evaluation["comparisons"],
        "count_comparisons": evaluation["count_comparisons"],
        "bon_curves": evaluation["bon_curves"],
        "equal_budget": evaluation["equal_budget"],
        "agreement": evaluation["agreement"],
        "agreement_comparisons": evaluation["agreement_comparisons"],
        "rejects": {"count": len(rejects), "reasons": reasons(rejects)},
        "notes": _notes(plan),
    }


def write_summary(summary: dict[str, Any], file: Path) -> None:
    """Writes summary.json whole or not at all."""
    temporary = file.with_name(f".{file.name}.partial")
    temporary.write_text(json.dumps(summary, indent=1, allow_nan=False))
    temporary.replace(file)


def write_all_rejects(plan: Plan, file: Path) -> None:
    """One table of what all stages refused, at the top of the output folder."""
    from orchestrator.data.rejects import write_rejects

    write_rejects(file, _rejects(plan))


def _rejects(plan: Plan) -> list[Reject]:
    found: list[Reject] = []
    for step in plan.steps:
        file = plan.sweep.store.folder(step.stage) / "rejects.parquet"
        if file.exists():
            found += [Reject(**row) for row in pq.read_table(file).to_pylist()]
    return found


def _is_training(marker: dict[str, Any]) -> bool:
    return "loss" in marker["figures"].get("series", {})


def _models(
    sweep: Sweep, markers: Sequence[dict[str, Any]], pair_accuracy: dict[str, Any]
) -> list[dict[str, Any]]:
    """The trained models in the order of their trainings, then the scorers that are not trained."""
    trained = {m["stage"].removeprefix("variants/"): m for m in markers if _is_training(m)}
    names = [*trained, *(name for name in sweep.models if name not in ("policy", *trained))]
    return [_model(sweep.config, name, trained.get(name), pair_accuracy) for name in names]


def _model(
    config: Config, name: str, marker: dict[str, Any] | None, pair_accuracy: dict[str, Any]
) -> dict[str, Any]:
    figures = {} if marker is None else marker["figures"]
    metrics, objective = figures.get("metrics", {}), objective_of(config, name)
    has_cuts = objective is not None and OBJECTIVES[objective].takes_partial_pairs()
    return {
        "name": name,
        "objective": objective,
        "steps": metrics.get("steps"),
        "rows": metrics.get("rows"),
        # Other objectives have rows without cuts: their number of partial pairs is not 0, but none.
        "partial_pairs": metrics.get("partial_pairs") if has_cuts else None,
        "seconds": metrics.get("train_seconds"),
        "final_loss": metrics.get("final_loss"),
        "pair_accuracy": pair_accuracy.get(name),
        "loss": figures.get("series", {}).get("loss", []),
    }


def objective_of(config: Config, name: str) -> str | None:
    """What a model was trained by; a density ratio is named so; None: a checkpoint does not say."""
    variant = config.variants.get(name)
    if variant is not None:
        if variant.checkpoint is None or variant.trained_by.is_log_ratio:
            return variant.objective
        return DensityRatio.name if variant.is_log_ratio else None
    if getattr(config.models, name) is not None:
        return None
    return LanguageModelling.name if name == "policy" else BradleyTerry.name


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS_SHOWN:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _notes(plan: Plan) -> list[str]:
    config = plan.sweep.config
    notes = [
        "Every model was trained with one seed: intervals are over prompts and pairs, not over"
        " trainings, and another seed may turn a small difference round.",
        f"Prefixes are scored {config.scoring.position} in search and training; the agreement"
        " tables show both positions.",
        "A reward is in its own model's unit: rewards of different scorers cannot be compared,"
        " which is why every cell also has the ORM's reward.",
    ]
    notes += _size_matched(plan)
    notes += [
        f"Set and not used: {', '.join(fields)} ({reason})."
        for reason, fields in superseded(config).items()
    ]
    notes += [note for method in config.search.all_methods.values() if (note := method.note)]
    return notes


def _size_matched(plan: Plan) -> list[str]:
    """What a variant gave up for as many partial pairs as another has: TLT cuts a pair often."""
    sweep, notes = plan.sweep, []
    for name, variant in sweep.config.variants.items():
        names = [f"variants/{name}", f"variants/{variant.match}"]
        if variant.truncation == "whole" or not all(name in sweep.stages for name in names):
            continue  # a control, unmatched, or somebody's own checkpoint
        markers = [sweep.store.marker(sweep.stages[stage]) for stage in names]
        rows, other = (marker["figures"]["metrics"]["rows"] for marker in markers)
        notes.append(
            f"{name} has as many partial pairs as {variant.match}, from {rows:,.0f} preference"
            f" pairs; {variant.match} learnt from {other:,.0f}."
        )
    return notes
