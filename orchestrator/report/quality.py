"""Draw quality against cost, in FLOPs and in seconds.

Each cell is a mark. For each scorer a line shows best-of-n for n = 1, 2, 4, ..., N, the baseline of
all methods.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.evaluation.metric import metrics_in_order
from orchestrator.report.entries import CellEntry, PointEntry, Summary, mean_of
from orchestrator.report.notation import flops_unit
from orchestrator.report.style import INK, label, logarithmic, new_figure
from orchestrator.report.table import label_of, method_order

MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
BAND = 0.08  # opacity of a line's interval


def quality_figures(summary: Summary, colour: Mapping[str | None, str]) -> dict[str, Figure | None]:
    """Return a figure for each kind of cost; None for a cost that was not measured."""
    costs = [flops for cell in summary["cells"] if (flops := _cost(cell, "flops"))]
    scale, unit = flops_unit(costs)
    return {
        "quality_and_flops": _figure(summary, colour, "flops", scale, f"{unit} per prompt"),
        "quality_and_seconds": _figure(summary, colour, "seconds", 1.0, "seconds per prompt"),
    }


def _figure(
    summary: Summary, colour: Mapping[str | None, str], cost: str, scale: float, axis: str
) -> Figure | None:
    cells = [cell for cell in method_order(summary["cells"]) if _cost(cell, cost)]
    ordered = metrics_in_order()
    measured = [m for m in ordered if any(cell["metrics"].get(m) for cell in cells)]
    metrics = [m for m in measured if ordered[m].measures_correctness][:1]
    metrics = ["orm_reward", *metrics] if "orm_reward" in measured else metrics
    if not metrics:
        return None
    width, height = 4.4 * len(metrics) + 1.9, 4.4
    figure, panels = new_figure(len(metrics), width=width, height=height)
    names = list(dict.fromkeys(cell["method"] for cell in cells))
    marker = {name: MARKERS[i % len(MARKERS)] for i, name in enumerate(names)}
    for axes, metric in zip(panels, metrics, strict=True):
        for curve in summary["bon_curves"]:
            _line(axes, curve["points"], metric, cost, scale, colour[curve["scorer"]])
        for cell in cells:
            mean, spent = mean_of(cell, metric), _cost(cell, cost)
            if mean is not None and spent is not None:
                axes.errorbar(
                    [spent / scale], [mean["value"]],
                    yerr=[[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]],
                    fmt=marker[cell["method"]], color=colour[cell["scorer"]],
                    markersize=7, elinewidth=1.2, capsize=2.5, alpha=0.9,
                )  # fmt: skip
        logarithmic(axes)
        axes.set_xlabel(axis)
        axes.set_ylabel(label_of(metric))
    figure.legend(handles=_legend(summary, cells, marker, colour), loc="outside right upper")
    return figure


def _line(
    axes: Axes,
    points: Sequence[PointEntry],
    metric: str,
    cost: str,
    scale: float,
    colour: str,
) -> None:
    measured = [(point, mean) for point in points if (mean := mean_of(point, metric)) is not None]
    costs = [point["cost"][cost] / scale for point, _ in measured]
    low, high = [mean["low"] for _, mean in measured], [mean["high"] for _, mean in measured]
    axes.fill_between(costs, low, high, color=colour, alpha=BAND, linewidth=0)
    axes.plot(
        costs,
        [mean["value"] for _, mean in measured],
        color=colour,
        linewidth=1.4,
        marker=".",
        markersize=4,
    )


def _legend(
    summary: Summary,
    cells: Sequence[CellEntry],
    marker: Mapping[str, str],
    colour: Mapping[str | None, str],
) -> list[Line2D]:
    handles = [
        Line2D([], [], color=INK, marker=shape, linestyle="", label=label(name))
        for name, shape in marker.items()
    ]
    if summary["bon_curves"]:
        handles.append(
            Line2D([], [], color=INK, marker=".", linewidth=1.4, label="bon, n = 1, 2, 4, ..., N")
        )
    return handles + [
        Line2D([], [], color=colour[scorer], linewidth=4, label=label(scorer))
        for scorer in dict.fromkeys(cell["scorer"] for cell in cells)
    ]


def _cost(cell: CellEntry, name: str) -> float | None:
    cost = (cell.get("cost") or {}).get(name)
    return float(cost) if cost else None
