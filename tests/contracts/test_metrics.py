"""What holds for every registered metric, and what each one measures."""

import pytest

from orchestrator.evaluation.metric import METRICS, compared_metrics, metrics_in_order, register
from orchestrator.records import Cost, Prompt, Response
from orchestrator.registry import PluginError
from orchestrator.tasks.task import TASKS

PROMPT = Prompt("p0", ({"role": "user", "content": "hello"},))
RESPONSE = Response("p0", (1, 2, 3), "end", 0.5, (0.5,), Cost())
# Of a response of this text; None: the task's grade, or computed for whole cells.
MEASURED = {"diversity": {"a b a b": 2 / 3 * 1.0 * 1.0, "a a a": 0.5 * 1.0, "": 1.0}}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_measures_what_is_computed_by_hand(name: str) -> None:
    metric = METRICS[name]
    for text, value in MEASURED.get(name, {}).items():
        assert metric.measure(PROMPT, text, RESPONSE) == pytest.approx(value)
    if name not in MEASURED:
        assert not metric.is_measured()


def test_names_and_labels_differ_and_are_those_of_the_registry() -> None:
    metrics = metrics_in_order()
    assert all(metric.name == name and metric.__doc__ for name, metric in metrics.items())
    assert len({metric.label for metric in metrics.values()}) == len(metrics)


def test_what_a_task_counts_is_no_metric() -> None:
    assert not {name for task in TASKS.values() for name in task.counted} & set(METRICS)


def test_cells_are_compared_in_the_order_of_the_tables() -> None:
    assert compared_metrics() == ["resolved", "accuracy", "rubric", "win_tie", "orm_reward"]


def test_a_name_is_defined_once() -> None:
    with pytest.raises(PluginError, match="metric 'length' is defined twice"):
        register(METRICS["length"])


@pytest.mark.parametrize("name", ["score", "response", "n", "seconds", "policy_flops"])
def test_a_name_of_a_column_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="a column of responses has this name"):
        register(type("Other", (METRICS["length"],), {"name": name}))
