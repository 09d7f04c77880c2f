"""Represent cells of a sweep as arrays: one value per prompt for each metric and cost.

Best-of-N at each n of a curve is a cell too, so it is measured and compared like every other cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from orchestrator.evaluation.costs import COSTS
from orchestrator.evaluation.metric import METRICS
from orchestrator.evaluation.resampling import Floats
from orchestrator.evaluation.statistics import (
    Interval,
    PairedTest,
    Resampling,
    mean_interval,
    paired_test,
    rate_interval,
)
from orchestrator.evaluation.win_tie import outcomes


@dataclass(frozen=True, eq=False)
class Cell:
    """The responses of one method with one scorer, in the order of the prompts.

    Attributes:
        method: label of the method.
        scorer: name of the scorer, None for a method without one.
        prompt_ids: ids of the N prompts.
        responses: the N texts.
        values: (N,) float64 for each metric and cost.
        parameters: the method's settings, JSON-able.
    """

    method: str
    scorer: str | None
    prompt_ids: list[str]
    responses: list[str]
    values: Mapping[str, Floats]
    parameters: Mapping[str, object]

    @classmethod
    def of_table(
        cls,
        method: str,
        scorer: str | None,
        table: pa.Table,
        parameters: Mapping[str, object],
        grades: Sequence[str] = (),
    ) -> Self:
        """Return the cell of a table of responses, with metrics, costs and some ``grades``."""
        values = {
            name: _floats(table[name])
            for name in dict.fromkeys((*COSTS, *METRICS, *grades))
            if name in table.column_names
        }
        values["finished"] = np.array([stop == "end" for stop in table["stop"].to_pylist()], float)
        if table["score"].null_count == 0:
            values["reward"] = _floats(table["score"])
        prompt_ids, responses = table["prompt_id"].to_pylist(), table["response"].to_pylist()
        return cls(method, scorer, prompt_ids, responses, values, parameters)

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Prompt id and response of each row."""
        return list(zip(self.prompt_ids, self.responses, strict=True))

    def first(self, count: int) -> "Cell":
        """Return the cell with its first prompts only."""
        return replace(
            self,
            prompt_ids=self.prompt_ids[:count],
            responses=self.responses[:count],
            values={name: values[:count] for name, values in self.values.items()},
        )

    def mean(self, name: str) -> float:
        """Return the mean of a metric or cost."""
        return float(self.values[name].mean())

    def with_values(self, name: str, values: Floats) -> "Cell":
        """Return the cell with one more metric (N,)."""
        return replace(self, values={**self.values, name: values})

    def with_rewards(self, rewards: Mapping[tuple[str, str], float]) -> "Cell":
        """Return the cell with ``orm_reward``: the ORM's reward of each row (appendix C.2)."""
        return self.with_values("orm_reward", np.array([rewards[row] for row in self.rows], float))

    def with_win_tie(self, name: str, grades: Floats, base_grades: Floats) -> "Cell":
        """Return the cell with a win-tie metric: 1 where a grade is not below the base response's.

        Args:
            name: name of the metric.
            grades: grades of the responses, (N,).
            base_grades: grades of the base policy's responses; first N for the same prompts.
        """
        wins, ties = outcomes(grades, base_grades[: len(grades)])
        return self.with_values(name, wins + ties)

    def interval(self, name: str, resampling: Resampling) -> Interval | None:
        """Return the mean of a metric with its 95 % interval; None if it was not measured."""
        if name not in self.values:
            return None
        if name in METRICS and METRICS[name].kind == "rate":  # one row per prompt, each 0 or 1
            return rate_interval(self.values[name])
        return mean_interval(
            self.values[name], resampling.seed, "cell", name,
            groups=self.prompt_ids, samples=resampling.samples,
        )  # fmt: skip

    def against(self, other: "Cell", name: str, resampling: Resampling) -> PairedTest:
        """Return the paired test of a metric against another cell, over this cell's prompts.

        The other cell's first prompts must be those of this cell.
        """
        return paired_test(
            self.values[name], other.values[name][: len(self.prompt_ids)],
            resampling.seed, "paired", name,
            groups=self.prompt_ids, samples=resampling.samples,
        )  # fmt: skip

    def costs(self) -> dict[str, float]:
        """Return the mean of each cost."""
        return {name: self.mean(name) for name in COSTS}


def distinct_rows(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return the distinct (prompt id, response) rows of cells, in order of first appearance."""
    return list(dict.fromkeys(row for cell in cells for row in cell.rows))


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.to_numpy(), np.float64)
