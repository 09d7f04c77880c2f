"""Build summary.json, the content of the report, from markers and tables of a sweep's stages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.config.load import to_yaml
from orchestrator.config.no_effect import superseded
from orchestrator.config.tree import Config
from orchestrator.data.rejects import reasons
from orchestrator.masking import mask_secrets
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.density_ratio import DensityRatio
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.objectives.objective import OBJECTIVES
from orchestrator.records import Reject
from orchestrator.report.entries import Evaluation, Mean, ModelEntry, Summary
from orchestrator.stages.result import Marker, StageResult

VERSIONS_SHOWN = ("ray", "torch", "transformers", "deepspeed", "mlflow", "pyarrow", "numpy")


@dataclass(frozen=True)
class SweepResults:
    """Results of the stages of a sweep.

    Attributes:
        config: config of the run.
        sweep_key: hash of the keys of all stages.
        output_dir: folder or URI of the results.
        markers: markers of the stages in the order of the plan.
        models: names of all models but the policy.
        evaluation: JSON of the evaluation stage.
        rejects: rejects of all stages.
    """

    config: Config
    sweep_key: str
    output_dir: str
    markers: Sequence[Marker]
    models: Sequence[str]
    evaluation: Evaluation
    rejects: Sequence[Reject]


def summarize(results: SweepResults) -> Summary:
    """Return the summary: all content of the report as values that JSON can hold."""
    config, markers, evaluation = results.config, results.markers, results.evaluation
    weights = [m["figures"]["weights"] for m in markers if m["stage"] == "partial_pairs"]
    return {
        "task": config.data.task_name(),
        "name": config.name,
        "seed": config.seed,
        "sweep_key": results.sweep_key,
        "output_dir": results.output_dir,
        "position": config.scoring.position,
        "versions": _versions(),
        "seconds": sum(m["seconds"] for m in markers),
        "training_seeds": 1,
        "config_yaml": mask_secrets(to_yaml(config)),
        "stages": [
            {
                "stage": m["stage"],
                "key": m["key"],
                "seconds": m["seconds"],
                "figures": m["figures"].get("metrics", {}),
            }
            for m in markers
        ],
        "models": model_rows(config, results.models, markers, evaluation["pair_accuracy"]),
        "weights": weights[0] if weights else [],
        "premise": evaluation["premise"],
        "cells": evaluation["cells"],
        "comparisons": evaluation["comparisons"],
        "count_comparisons": evaluation["count_comparisons"],
        "bon_curves": evaluation["bon_curves"],
        "equal_budget": evaluation["equal_budget"],
        "agreement": evaluation["agreement"],
        "agreement_comparisons": evaluation["agreement_comparisons"],
        "rejects": {"count": len(results.rejects), "reasons": reasons(results.rejects)},
        "notes": _notes(config, markers),
    }


def write_summary(summary: Summary, file: Path) -> None:
    """Write summary.json; an interrupted write leaves the old file."""
    temporary = file.with_name(f".{file.name}.partial")
    temporary.write_text(json.dumps(summary, indent=1, allow_nan=False))
    temporary.replace(file)


def model_rows(
    config: Config,
    models: Sequence[str],
    markers: Sequence[Marker],
    pair_accuracy: Mapping[str, Mean],
) -> list[ModelEntry]:
    """Return a row per model: trained models in the order of their training, then the others."""
    trained = {m["stage"].removeprefix("variants/"): m for m in markers if _is_training(m)}
    names = [*trained, *(name for name in models if name not in trained)]
    return [_model(config, name, trained.get(name), pair_accuracy) for name in names]


def objective_of(config: Config, name: str) -> str | None:
    """Return the objective of a model's training; None for a checkpoint without this information.

    A log ratio that was not trained as one is a "density_ratio".
    """
    variant = config.variants.get(name)
    if variant is not None:
        if variant.checkpoint is None or variant.trained_by.is_log_ratio:
            return variant.objective
        return DensityRatio.name if variant.has_base else None
    if getattr(config.models, name) is not None:
        return None
    return LanguageModelling.name if name == "policy" else BradleyTerry.name


def _is_training(marker: Marker) -> bool:
    return "loss" in marker["figures"].get("series", {})


def _model(
    config: Config, name: str, marker: Marker | None, pair_accuracy: Mapping[str, Mean]
) -> ModelEntry:
    result: StageResult = {} if marker is None else marker["figures"]
    metrics, series = result.get("metrics", {}), result.get("series", {})
    objective = objective_of(config, name)
    has_cuts = objective is not None and OBJECTIVES[objective].takes_partial_pairs()
    return {
        "name": name,
        "objective": objective,
        "steps": metrics.get("steps"),
        "rows": metrics.get("rows"),
        # Rows of other objectives have no cuts: their number of partial pairs is none, not 0.
        "partial_pairs": metrics.get("partial_pairs") if has_cuts else None,
        "seconds": metrics.get("train_seconds"),
        "final_loss": metrics.get("final_loss"),
        "pair_accuracy": pair_accuracy.get(name),
        "loss": series.get("loss", []),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in VERSIONS_SHOWN:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _notes(config: Config, markers: Sequence[Marker]) -> list[str]:
    notes = [
        "Every model was trained with one seed: intervals are over prompts and pairs, not over"
        " trainings, and another seed may reverse a small difference.",
        f"Prefixes are scored {config.scoring.position} in search and training; the agreement"
        " tables show both positions.",
        "A reward is in its own model's unit: rewards of different scorers cannot be compared,"
        " which is why every cell also has the ORM's reward.",
    ]
    notes += _size_matched(config, markers)
    notes += [
        f"Set and not used: {', '.join(fields)} ({reason})."
        for reason, fields in superseded(config).items()
    ]
    notes += [note for method in config.search.all_methods.values() if (note := method.note)]
    return notes


def _size_matched(config: Config, markers: Sequence[Marker]) -> list[str]:
    """Return how many preference pairs give a variant as many partial pairs as another one."""
    notes, by_stage = [], {marker["stage"]: marker for marker in markers}
    for name, variant in config.variants.items():
        stages = [f"variants/{name}", f"variants/{variant.match}"]
        if variant.truncation == "whole" or not all(stage in by_stage for stage in stages):
            continue  # a control, a variant that matches none, or a user's checkpoint
        rows, other = (by_stage[stage]["figures"]["metrics"]["rows"] for stage in stages)
        notes.append(
            f"{name} has as many partial pairs as {variant.match}, from {rows:,.0f} preference"
            f" pairs; {variant.match} learnt from {other:,.0f}."
        )
    return notes
