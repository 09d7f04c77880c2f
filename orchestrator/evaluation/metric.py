"""The base class of metrics of responses, and their registry.

A metric has one value for each response of a cell. The sweep averages it with an interval, tests it
between cells if it is compared, and shows it in MLflow, tables and report.
"""

from dataclasses import fields
from typing import ClassVar, Literal, TypeVar

from orchestrator.records import Cost, Prompt, Response
from orchestrator.registry import PluginError, Registry

# Columns of the cells besides the metrics.
RESERVED = frozenset(
    ["prompt_id", "prompt", "response", "token_ids", "stop", "score", "step_scores", "margin", "n"]
    + ["policy_flops", "reward_flops", "flops"]
    + [field.name for field in fields(Cost)]
)


class Metric:
    """A metric; a subclass sets ``name`` and ``label``, and usually defines ``measure``.

    Attributes:
        name: its key in summary.json, MLflow and the columns of a cell's Parquet file.
        label: its heading in tables.
        order: rank of its column, ascending; equal ranks are sorted by name.
        kind: "rate" if each value is 0 or 1, else "mean"; it decides the interval.
        compared: whether cells are compared in it by paired tests.
        comparable: whether a higher value means a better response, whatever the scorer.
        measures_correctness: whether it measures that a response is right; figures show the
            first such metric of a task, and the reward.
        html_only: whether it is left out of the terminal's table.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    order: ClassVar[int] = 100
    kind: ClassVar[Literal["mean", "rate"]] = "mean"
    compared: ClassVar[bool] = False
    comparable: ClassVar[bool] = True
    measures_correctness: ClassVar[bool] = False
    html_only: ClassVar[bool] = False

    @classmethod
    def measure(cls, prompt: Prompt, text: str, response: Response) -> float | None:
        """Return the value of a response, a finite number.

        A metric that does not define this method is a task's grade of the same name, or the
        evaluation computes it for whole cells.
        """
        return None

    @classmethod
    def is_measured(cls) -> bool:
        """Whether the class defines ``measure``."""
        return cls.measure.__func__ is not Metric.measure.__func__  # type: ignore[attr-defined]


MetricT = TypeVar("MetricT", bound=type[Metric])
METRICS: Registry[type[Metric]] = Registry(
    "metric", "orchestrator.evaluation.metrics", "prm_orchestrator.metrics"
)


def register(metric: MetricT) -> MetricT:
    """Register a metric under its name.

    Raises:
        PluginError: another metric has the name, or a column of responses has it.
    """
    if metric.name in RESERVED:
        raise PluginError(f"metric {metric.name!r}: a column of responses has this name")
    METRICS.add(metric.name, metric)
    return metric


def metrics_in_order() -> dict[str, type[Metric]]:
    """Return all metrics by name, in the order of tables."""
    return dict(sorted(METRICS.items(), key=lambda item: (item[1].order, item[0])))


def compared_metrics() -> list[str]:
    """Return the names of the metrics in which cells are compared, in the order of tables."""
    return [name for name, metric in metrics_in_order().items() if metric.compared]
