"""Step 8b: what the cells and the prefix scores say, with intervals and paired tests.

Writes evaluation.json, the statistical part of the summary: cells, comparisons, agreement, premise.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jobs.steps.prefix_evaluation import agreement
from jobs.steps.responses import COSTS
from jobs.steps.search import test_prompts, whole_rewards
from jobs.steps.sweep import Figures, Step, Sweep
from orchestrator.evaluation.graders import COUNTED, JUDGED_BY
from orchestrator.evaluation.statistics import mean_interval, paired_test, rate_interval
from orchestrator.evaluation.win_tie import outcomes
from orchestrator.stages.progress import Meter

AVERAGED = ("rubric", "resolved", "accuracy", "diversity")
COMPARED = ("resolved", "accuracy", "rubric", "win_tie", "orm_reward")
RATES = ("resolved", "accuracy", "win_tie", "finished")
BASELINES = ("orm", "orm_continued")


@dataclass
class Cell:
    """A cell's rows: one value a prompt for each metric, in the order of the prompts."""

    method: str
    scorer: str | None
    prompt_ids: list[str]
    values: dict[str, np.ndarray]
    parameters: dict[str, Any]


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Reads all cells, adds the ORM's reward and the win-tie outcomes, and tests."""
    cells = [_read(sweep, options) for options in step.options["cells"]]
    _rate(sweep, cells)
    base = next(cell for cell in cells if cell.method == "base")
    for cell in cells:
        _win_tie(sweep, cell, base)
        meter.advance()
    found = {
        "cells": [_summary(sweep, cell) for cell in cells],
        "comparisons": _comparisons(sweep, cells, COMPARED),
        "count_comparisons": _comparisons(sweep, cells, _counted(sweep)),
        **agreement(sweep, step.options["scored"], meter),
    }
    (folder / "evaluation.json").write_text(json.dumps(found, indent=1, allow_nan=False))
    holds = found["premise"]["holds"]
    return {"metrics": {} if holds is None else {"premise_holds": float(holds)}}


def _read(sweep: Sweep, options: dict[str, Any]) -> Cell:
    table = pq.read_table(sweep.file(options["stage"], "responses.parquet"))
    values = {
        n: np.asarray(table[n].to_numpy(), float)
        for n in (*COSTS, *AVERAGED, *_counted(sweep))
        if n in table.column_names
    }
    values["length"] = np.array([len(ids) for ids in table["token_ids"].to_pylist()], float)
    values["finished"] = np.array([stop == "end" for stop in table["stop"].to_pylist()], float)
    if table["score"].null_count == 0:
        values["reward"] = np.asarray(table["score"].to_numpy(), float)
    marker = sweep.store.marker(sweep.stages[options["stage"]])
    parameters = marker["figures"].get("parameters", {})
    return Cell(
        options["method"], options["scorer"], table["prompt_id"].to_pylist(), values, parameters
    )


def _counted(sweep: Sweep) -> tuple[str, ...]:
    return COUNTED.get(sweep.config.data.task, ())


def _rate(sweep: Sweep, cells: list[Cell]) -> None:
    """The response-level reward of every cell by the same model, the ORM (appendix C.2)."""
    prompts = {prompt.prompt_id: prompt for prompt in test_prompts(sweep)}
    texts, owners = [], []
    for cell in cells:
        stage = sweep.stages[cell_stage(cell.method, cell.scorer)]
        table = pq.read_table(sweep.store.folder(stage) / "responses.parquet")
        responses = table["response"].to_pylist()
        texts += [(prompts[i], y) for i, y in zip(cell.prompt_ids, responses, strict=True)]
        owners.append(len(responses))
    rewards = np.array(whole_rewards(sweep, "orm", texts))
    for cell, part in zip(cells, np.split(rewards, np.cumsum(owners)[:-1]), strict=True):
        cell.values["orm_reward"] = part


def cell_stage(method: str, scorer: str | None) -> str:
    """The name of a cell's stage."""
    return f"cells/{method}/{scorer or 'none'}"


def _win_tie(sweep: Sweep, cell: Cell, base: Cell) -> None:
    judged = JUDGED_BY.get(sweep.config.data.task)
    if judged is not None:
        grades = cell.values[judged]
        wins, ties = outcomes(grades, base.values[judged][: len(grades)])
        cell.values["win_tie"] = wins + ties


def _summary(sweep: Sweep, cell: Cell) -> dict[str, Any]:
    config = sweep.config
    names = ("reward", "orm_reward", *AVERAGED, "win_tie", "length", "finished")
    metrics: dict[str, Any] = {name: _interval(sweep, cell, name) for name in names}
    reward = cell.values.get("reward")
    metrics["reward_std"] = None if reward is None else float(reward.std())
    return {
        "task": config.data.task,
        "method": cell.method,
        "scorer": cell.scorer,
        "seed": config.seed,
        "prompts": len(cell.prompt_ids),
        "parameters": cell.parameters,
        "metrics": metrics,
        "counts": {name: _interval(sweep, cell, name) for name in _counted(sweep)},
        "cost": {name: float(cell.values[name].mean()) for name in COSTS},
    }


def _interval(sweep: Sweep, cell: Cell, name: str) -> dict[str, Any] | None:
    if name not in cell.values:
        return None
    if name in RATES:  # a row a prompt, each 0 or 1
        return asdict(rate_interval(cell.values[name]))
    found = mean_interval(
        cell.values[name],
        sweep.config.seed,
        "cell",
        name,
        groups=cell.prompt_ids,
        samples=sweep.config.evaluation.bootstrap_samples,
    )
    return asdict(found)


def _comparisons(sweep: Sweep, cells: list[Cell], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Each scorer against ORM and ORM trained on, and every cell against base, prompt by prompt."""
    by_name = {(cell.method, cell.scorer): cell for cell in cells}
    base = by_name["base", None]
    found = []
    for cell in cells:
        baselines = [(name, by_name.get((cell.method, name))) for name in BASELINES]
        pairs = [(name, other) for name, other in baselines if cell.scorer is not None]
        pairs.append(("base", base))
        for name, other in pairs:
            if other is None or other is cell or (name == "orm_continued" and cell.scorer == "orm"):
                continue
            found += [
                {
                    "method": cell.method,
                    "scorer": cell.scorer,
                    "baseline": name,
                    "metric": metric,
                    "test": _paired(sweep, cell, other, metric),
                }
                for metric in metrics
                if metric in cell.values
                and metric in other.values
                # Win-tie is against base already: base's own rate is 1, and no rate is over it.
                and not (metric == "win_tie" and name == "base")
            ]
    return found


def _paired(sweep: Sweep, cell: Cell, other: Cell, metric: str) -> dict[str, Any]:
    size = len(cell.prompt_ids)
    return asdict(
        paired_test(
            cell.values[metric],
            other.values[metric][:size],
            sweep.config.seed,
            "paired",
            metric,
            groups=cell.prompt_ids,
            samples=sweep.config.evaluation.bootstrap_samples,
        )
    )
