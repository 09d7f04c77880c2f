"""Step 8b: what the cells and the prefix scores say, with intervals and paired tests.

Writes evaluation.json, the statistical part of the summary: cells, comparisons, equal budgets,
agreement, premise.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.sweep.cells import (
    Cell,
    counted,
    interval_of,
    paired,
    rate,
    read_cell,
    read_curve,
)
from jobs.sweep.equal_budget import curve_summaries, equal_budget
from jobs.sweep.prefix_evaluation import agreement
from jobs.sweep.responses import COSTS
from jobs.sweep.steps.search import test_prompts
from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.evaluation.metric import compared_metrics, metrics_in_order
from orchestrator.evaluation.metrics.judges import win_tie_by
from orchestrator.evaluation.win_tie import outcomes
from orchestrator.judges.judge import Judged
from orchestrator.search.methods.policy_alone import BASELINE
from orchestrator.stages.progress import Meter

BASELINES = ("orm", "orm_continued")


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Reads all cells, adds the ORM's reward and the win-tie outcomes, and tests."""
    cells = [read_cell(sweep, options) for options in step.options["cells"]]
    methods = sweep.config.search.all_methods
    curves = {  # of several curves of a scorer the last one counts
        options["scorer"]: read_curve(sweep, options)
        for options in step.options["cells"]
        if methods[options["method"]].has_curve
    }
    points = [cell for curve in curves.values() for cell in curve]
    rate(sweep, [*cells, *points])
    _add_win_ties(sweep, [*cells, *points], next(c for c in cells if c.method == BASELINE))
    meter.advance(len(cells))
    found = {
        "cells": [_summary(sweep, cell) for cell in cells],
        "comparisons": _comparisons(sweep, cells, compared_metrics()),
        "count_comparisons": _comparisons(sweep, cells, counted(sweep)),
        "bon_curves": curve_summaries(sweep, curves),
        "equal_budget": equal_budget(sweep, cells, curves),
        **agreement(sweep, step.options["scored"], meter),
    }
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1, allow_nan=False))
    decided = {"holds": 1.0, "does not hold": 0.0}.get(found["premise"]["verdict"])
    return {"metrics": {} if decided is None else {"premise_holds": decided}}


def cell_stage(method: str, scorer: str | None) -> str:
    """The name of a cell's stage."""
    return f"cells/{method}/{scorer or 'none'}"


def _add_win_ties(sweep: Sweep, cells: Sequence[Cell], base: Cell) -> None:
    """Add to each cell whether a response is no worse than base's, by each judge."""
    task = sweep.config.data
    if task.judged_by is not None:  # the cells hold the grade
        _add_win_tie("win_tie", cells, [cell.values[task.judged_by] for cell in cells], base)
    prompts = {prompt.prompt_id: prompt for prompt in test_prompts(sweep)}
    for judge in sweep.config.evaluation.judges:
        texts = [
            [
                Judged(prompts[prompt_id], response, bool(finished))
                for prompt_id, response, finished in zip(
                    cell.prompt_ids, cell.responses, cell.values["finished"], strict=True
                )
            ]
            for cell in cells
        ]
        asked = list(
            {_text_key(text): text for cell_texts in texts for text in cell_texts}.values()
        )
        verdicts = judge.verdicts(task, asked)
        values = {
            _text_key(text): verdict.value for text, verdict in zip(asked, verdicts, strict=True)
        }
        grades = [
            np.array([values[_text_key(text)] for text in cell_texts]) for cell_texts in texts
        ]
        _add_win_tie(win_tie_by(judge.judge_name()), cells, grades, base)


def _text_key(text: Judged) -> tuple[str, str, bool]:
    return text.prompt.prompt_id, text.response, text.finished


def _add_win_tie(
    name: str, cells: Sequence[Cell], grades: Sequence[np.ndarray], base: Cell
) -> None:
    base_grades = next(g for cell, g in zip(cells, grades, strict=True) if cell is base)
    for cell, values in zip(cells, grades, strict=True):
        wins, ties = outcomes(values, base_grades[: len(values)])
        cell.values[name] = wins + ties


def _summary(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    config = sweep.config
    metrics: dict[str, Any] = {name: interval_of(sweep, cell, name) for name in metrics_in_order()}
    reward = cell.values.get("reward")
    metrics["reward_std"] = None if reward is None else float(reward.std())
    return {
        "task": config.data.task_name(),
        "method": cell.method,
        "scorer": cell.scorer,
        "seed": config.seed,
        "prompts": len(cell.prompt_ids),
        "parameters": cell.parameters,
        "metrics": metrics,
        "counts": {name: interval_of(sweep, cell, name) for name in counted(sweep)},
        "cost": {name: cell.mean(name) for name in COSTS},
    }


def _comparisons(sweep: Sweep, cells: list[Cell], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Each scorer against ORM and ORM trained on, and every cell against base, prompt by prompt."""
    by_name = {(cell.method, cell.scorer): cell for cell in cells}
    base = by_name[BASELINE, None]
    found = []
    for cell in cells:
        baselines = [(name, by_name.get((cell.method, name))) for name in BASELINES]
        pairs = [(name, other) for name, other in baselines if cell.scorer is not None]
        pairs.append((BASELINE, base))
        for name, other in pairs:
            if other is None or other is cell or (name == "orm_continued" and cell.scorer == "orm"):
                continue
            found += [
                {
                    "method": cell.method,
                    "scorer": cell.scorer,
                    "baseline": name,
                    "metric": metric,
                    "test": paired(sweep, cell, other, metric),
                }
                for metric in metrics
                if metric in cell.values
                and metric in other.values
                # Win-tie is against base already: base's rate is 1, and no rate is higher.
                and not (metric.startswith("win_tie") and name == BASELINE)
            ]
    return found
