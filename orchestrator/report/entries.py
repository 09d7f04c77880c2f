"""Define the types of summary.json and of its entries, as the report reads them."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from orchestrator.stages.result import WeightsEntry


class Mean(TypedDict):
    """A mean with its 95 % interval over ``count`` prompts or pairs."""

    value: float
    low: float
    high: float
    count: int


class PairedEntry(TypedDict):
    """A paired test: a mean difference with its 95 % interval and p-value."""

    difference: float
    low: float
    high: float
    p_value: float
    count: int


class MethodEntry(TypedDict):
    """An entry that has the label of a search method."""

    method: str


class PointEntry(TypedDict):
    """Metrics and costs per prompt; a metric that was not measured is None."""

    metrics: Mapping[str, Mean | float | None]
    cost: Mapping[str, float]


class CellEntry(TypedDict):
    """A cell: metrics, mean counts per response and costs per prompt of one method and scorer."""

    method: str
    scorer: str | None
    seed: int
    prompts: int
    parameters: Mapping[str, object]
    metrics: Mapping[str, Mean | float | None]
    counts: NotRequired[Mapping[str, Mean]]
    cost: NotRequired[Mapping[str, float] | None]


class ComparisonEntry(TypedDict):
    """A paired test of a cell against the cell of a baseline, in one metric or count."""

    method: str
    scorer: str | None
    baseline: str
    metric: str
    test: PairedEntry | None


class CurveEntry(TypedDict):
    """Best-of-n of one scorer, for each n."""

    scorer: str
    points: list[PointEntry]


class BudgetEntry(TypedDict):
    """A cell against best-of-n with its scorer at the same cost; ``budget`` names the cost."""

    method: str
    scorer: str | None
    budget: str
    n: int
    most: int
    share: float
    tests: Mapping[str, PairedEntry]


class RateEntry(TypedDict):
    """A measure of prefix scores at each length of ``grid``, over three sets of pairs."""

    measure: str
    scorer: str | None
    position: str
    grid: list[int]
    pair_set: str
    strict: list[Mean | None]
    distinct: list[Mean | None]
    decided: list[Mean | None]
    strict_mean: Mean | None
    distinct_mean: Mean | None
    decided_mean: Mean | None


class RateComparisonEntry(TypedDict):
    """A paired test of two scorers in the mean of a measure."""

    measure: str
    scorer: str | None
    baseline: str
    position: str
    pair_set: str
    test: PairedEntry | None


class PremiseEntry(TypedDict):
    """The test of the premise of section 4.2; its numbers are None if it was not tested."""

    verdict: str
    text: str
    reference: Mean | None
    orm: Mean | None
    difference: PairedEntry | None


class ModelEntry(TypedDict):
    """A model with the measurements of its training; None for those that it does not have."""

    name: str
    objective: str | None
    steps: float | None
    rows: float | None
    partial_pairs: float | None
    seconds: float | None
    final_loss: float | None
    pair_accuracy: Mean | None
    loss: list[tuple[int, float]]


class StageEntry(TypedDict):
    """A stage with its key, wall time and figures."""

    stage: str
    key: str
    seconds: float
    figures: Mapping[str, float]


class RejectsEntry(TypedDict):
    """The number of rejected rows, by reason."""

    count: int
    reasons: Mapping[str, int]


class Evaluation(TypedDict):
    """Results of the evaluation stage; ``pair_accuracy`` has the value of each model by name."""

    premise: PremiseEntry
    cells: list[CellEntry]
    comparisons: list[ComparisonEntry]
    count_comparisons: list[ComparisonEntry]
    bon_curves: list[CurveEntry]
    equal_budget: list[BudgetEntry]
    agreement: list[RateEntry]
    agreement_comparisons: list[RateComparisonEntry]
    pair_accuracy: Mapping[str, Mean]


class Summary(TypedDict):
    """The summary of a sweep: the content of summary.json."""

    task: str
    name: str
    seed: int
    sweep_key: str
    output_dir: str
    position: str
    versions: dict[str, str]
    seconds: float
    training_seeds: int
    config_yaml: str
    stages: list[StageEntry]
    models: list[ModelEntry]
    weights: list[WeightsEntry]
    premise: PremiseEntry
    cells: list[CellEntry]
    comparisons: list[ComparisonEntry]
    count_comparisons: list[ComparisonEntry]
    bon_curves: list[CurveEntry]
    equal_budget: list[BudgetEntry]
    agreement: list[RateEntry]
    agreement_comparisons: list[RateComparisonEntry]
    rejects: RejectsEntry
    notes: list[str]
    mlflow_command: NotRequired[str]


def mean_of(entry: CellEntry | PointEntry, metric: str) -> Mean | None:
    """Return the mean of a metric; None if it was not measured or is a plain number."""
    mean = entry["metrics"].get(metric)
    return None if isinstance(mean, int | float) else mean


def pair_sets(rate: RateEntry) -> dict[str, tuple[list[Mean | None], Mean | None]]:
    """Return the rates at each length and their mean, for each set of pairs."""
    return {
        "strict": (rate["strict"], rate["strict_mean"]),
        "distinct": (rate["distinct"], rate["distinct_mean"]),
        "decided": (rate["decided"], rate["decided_mean"]),
    }
