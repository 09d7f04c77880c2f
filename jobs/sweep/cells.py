"""A cell as the evaluation sees it: one value a prompt for each metric and cost.

Best-of-n at each n of a curve is a cell too, so that it is measured and compared as all others are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.sweep.responses import COSTS
from jobs.sweep.steps.search import test_prompts, whole_rewards
from jobs.sweep.sweep import Sweep
from orchestrator.evaluation.metric import METRICS
from orchestrator.evaluation.statistics import mean_interval, paired_test, rate_interval


@dataclass
class Cell:
    """A cell's rows in the order of the prompts; ``values`` (N,) float64 each."""

    method: str
    scorer: str | None
    prompt_ids: list[str]
    responses: list[str]
    values: dict[str, np.ndarray]
    parameters: dict[str, Any]

    def first(self, count: int) -> "Cell":
        """The same on its first prompts."""
        values = {name: values[:count] for name, values in self.values.items()}
        return Cell(
            self.method, self.scorer, self.prompt_ids[:count], self.responses[:count], values,
            self.parameters,
        )  # fmt: skip

    def mean(self, name: str) -> float:
        """The mean of a metric or cost."""
        return float(self.values[name].mean())


def read_cell(sweep: Sweep, options: dict[str, Any]) -> Cell:
    """What a cell's stage left."""
    table = pq.read_table(sweep.file(options["stage"], "responses.parquet"))
    marker = sweep.store.marker(sweep.stages[options["stage"]])
    parameters = marker["figures"].get("parameters", {})
    return _cell(sweep, options["method"], options["scorer"], table, parameters)


def read_curve(sweep: Sweep, options: dict[str, Any]) -> list[Cell]:
    """The curve that a stage of BoN left: a cell for each n, by rising n."""
    table = pq.read_table(sweep.file(options["stage"], "curve.parquet"))
    sizes = sorted(set(table["n"].to_pylist()))
    names = options["method"], options["scorer"]
    return [_cell(sweep, *names, table.filter(pc.equal(table["n"], n)), {"n": n}) for n in sizes]


def grade_names(sweep: Sweep) -> tuple[str, ...]:
    """The task's grades that the evaluation reads beside those that are metrics."""
    task = sweep.config.data
    return (*task.counted, *([task.judged_by] if task.judged_by else []))


def counted(sweep: Sweep) -> tuple[str, ...]:
    """The task's grades that count what is in a response."""
    return sweep.config.data.counted


def rate(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """The response-level reward of every cell by the same model, the ORM (appendix C.2).

    A response that several cells give is scored once.
    """
    prompts = {prompt.prompt_id: prompt for prompt in test_prompts(sweep)}
    rows = [list(zip(cell.prompt_ids, cell.responses, strict=True)) for cell in cells]
    asked = list(dict.fromkeys(row for own in rows for row in own))
    rewards = whole_rewards(sweep, "orm", [(prompts[name], text) for name, text in asked])
    found = dict(zip(asked, rewards, strict=True))
    for cell, own in zip(cells, rows, strict=True):
        cell.values["orm_reward"] = np.array([found[row] for row in own], float)


def interval_of(sweep: Sweep, cell: Cell, name: str) -> dict[str, Any] | None:
    """A metric's mean with its interval; None where it was not measured."""
    if name not in cell.values:
        return None
    if name in METRICS and METRICS[name].kind == "rate":  # a row a prompt, each 0 or 1
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


def paired(sweep: Sweep, cell: Cell, other: Cell, metric: str) -> dict[str, Any]:
    """A metric of a cell against another's, over the cell's prompts, the first of the other's."""
    found = paired_test(
        cell.values[metric],
        other.values[metric][: len(cell.prompt_ids)],
        sweep.config.seed,
        "paired",
        metric,
        groups=cell.prompt_ids,
        samples=sweep.config.evaluation.bootstrap_samples,
    )
    return asdict(found)


def _cell(
    sweep: Sweep, method: str, scorer: str | None, table: pa.Table, parameters: dict[str, Any]
) -> Cell:
    values = {
        name: np.asarray(table[name].to_numpy(), float)
        for name in dict.fromkeys((*COSTS, *METRICS, *grade_names(sweep)))
        if name in table.column_names
    }
    values["finished"] = np.array([stop == "end" for stop in table["stop"].to_pylist()], float)
    if table["score"].null_count == 0:
        values["reward"] = np.asarray(table["score"].to_numpy(), float)
    return Cell(
        method, scorer, table["prompt_id"].to_pylist(), table["response"].to_pylist(), values,
        parameters,
    )  # fmt: skip
