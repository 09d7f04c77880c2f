"""The result of a stage: metrics, series, settings; and the format of the marker that stores it."""

from typing import TypedDict

from orchestrator.rewards.weight_tally import WeightSummary

Series = list[tuple[int, float]]  # (step, value)


class WeightsEntry(WeightSummary):
    """The weights of the partial pairs of one truncation, as in summary.json."""

    truncation: str


class StageResult(TypedDict, total=False):
    """The result of a stage, JSON-able.

    Attributes:
        metrics: numbers for MLflow and the summary.
        series: curves for MLflow and the report.
        parameters: settings of a search method, calibrated values included.
        rejects: number of rejected rows by reason.
        weights: for each truncation, what the report shows of the partial pairs' weights.
    """

    metrics: dict[str, float]
    series: dict[str, Series]
    parameters: dict[str, object]
    rejects: dict[str, int]
    weights: list[WeightsEntry]


class Marker(TypedDict):
    """The content of `_DONE.json` of a finished stage.

    Attributes:
        stage: its name.
        key: its key.
        config: what of the config decides it.
        inputs: key of each stage that it reads, by name.
        seconds: wall time of the stage.
        finished: UTC time, ISO 8601.
        figures: its result.
    """

    stage: str
    key: str
    config: dict[str, object]
    inputs: dict[str, str]
    seconds: float
    finished: str
    figures: StageResult
