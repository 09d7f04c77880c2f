"""Draw the figures: quality and cost, agreement by length, paired differences, training.

They show section 5 and appendix B with intervals. matplotlib (Agg) draws them, without pyplot.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.report.entries import RateEntry, Summary, pair_sets
from orchestrator.report.forest import forests
from orchestrator.report.quality import quality_figures
from orchestrator.report.style import (
    INK,
    PALETTE,
    STYLE,
    colours,
    label,
    logarithmic,
    new_figure,
    save,
)

RATES = ("AR_RM-SC", "AR_SC-HP", "AR_RM-HP", "prefix_accuracy")
LINES: dict[str, Literal["-", "--"]] = {"closed": "-", "open": "--"}
BANDS = {"closed": 0.18, "open": 0.07}  # opacity
WIDE_RANGE = 50  # ratio of the largest to the smallest weight for a logarithmic axis


def figures(summary: Summary) -> dict[str, Figure]:
    """Return the figures by name; a figure without data is left out.

    Their layout is final, as it costs more than drawing a file.
    """
    drawing: dict[str, Callable[[Summary], Figure | None]] = {
        "agreement": agreement,
        "reward_gap": reward_gap,
        "training_loss": training_loss,
        "weights": weights,
    }
    with matplotlib.rc_context(STYLE):
        drawn = quality_figures(summary, _colours(summary))
        drawn |= {name: draw(summary) for name, draw in drawing.items()}
        made = {n: f for n, f in drawn.items() if f is not None} | forests(summary)
        for figure in made.values():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return made


def save_figures(drawn: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as PNG and SVG to a folder, which is created; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [path for name, figure in drawn.items() for path in save(name, figure, folder)]


def agreement(summary: Summary) -> Figure | None:
    """Draw agreement rates by prefix length, one panel per measure."""
    measures = [m for m in RATES if any(rate["measure"] == m for rate in summary["agreement"])]
    return _curves(summary, measures, "share of prefix pairs")


def reward_gap(summary: Summary) -> Figure | None:
    """Draw the mean |r(x, y_w<t) - r(x, y_l<t)| by prefix length (observation 4)."""
    is_measured = any(rate["measure"] == "reward_gap" for rate in summary["agreement"])
    return _curves(summary, ["reward_gap"] if is_measured else [], "gap, in the scorer's unit")


def _curves(summary: Summary, measures: Sequence[str], quantity: str) -> Figure | None:
    if not measures:
        return None
    columns, rows = min(len(measures), 2), (len(measures) + 1) // 2
    figure, panels = new_figure(
        columns, rows, width=4.2 * columns + 1.8, height=3.1 * rows + 0.2, sharey=True
    )
    colour = _colours(summary)
    shown = [rate for rate in summary["agreement"] if rate["measure"] in measures]
    for axes, measure in zip(panels, measures, strict=False):
        for rate in shown:
            if rate["measure"] == measure:
                _band(axes, rate, colour[rate["scorer"]])
        title = measure.replace("_", " ") if measure.islower() else measure
        pair_set = next(rate["pair_set"] for rate in shown if rate["measure"] == measure)
        axes.set_title(f"{title}, {pair_set} pairs")
        axes.set_xlabel("prefix length t, tokens")
    for axes in panels[::columns]:  # the other panels share their axis
        axes.set_ylabel(quantity)
    for axes in panels[len(measures) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=colour[scorer], linewidth=2, label=label(scorer))
        for scorer in dict.fromkeys(rate["scorer"] for rate in shown)
    ]
    handles += [
        Line2D([], [], color=INK, linestyle=LINES[position], label=position)
        for position in LINES
        if any(rate["position"] == position for rate in shown)
    ]
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def _band(axes: Axes, rate: RateEntry, colour: str) -> None:
    intervals, _ = pair_sets(rate)[rate["pair_set"]]
    points = [(t, f) for t, f in zip(rate["grid"], intervals, strict=True) if f is not None]
    lengths = [t for t, _ in points]
    low, high = [mean["low"] for _, mean in points], [mean["high"] for _, mean in points]
    axes.fill_between(lengths, low, high, color=colour, alpha=BANDS[rate["position"]], linewidth=0)
    axes.plot(
        lengths, [mean["value"] for _, mean in points],
        color=colour, linestyle=LINES[rate["position"]], marker=".", markersize=5,
    )  # fmt: skip


def training_loss(summary: Summary) -> Figure | None:
    """Draw the loss of each reward model by training step."""
    models = [model for model in summary["models"] if model["loss"]]
    if not models:
        return None
    figure, (axes,) = new_figure(width=9, height=3.8)
    colour = _colours(summary)
    for model in models:
        steps, losses = zip(*model["loss"], strict=True)
        axes.plot(
            steps, losses, color=colour[model["name"]], linewidth=1.3, label=label(model["name"])
        )
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    figure.legend(handles=axes.lines, loc="outside right upper")
    return figure


def weights(summary: Summary) -> Figure | None:
    """Draw histograms of the weights w = 1/H of kept pairs (section 4.2), one per truncation."""
    entries = [entry for entry in summary["weights"] if entry["histogram"]["counts"]]
    if not entries:
        return None
    figure, panels = new_figure(len(entries), width=4.5 * len(entries), height=3.2)
    for axes, entry in zip(panels, entries, strict=True):
        edges = entry["histogram"]["edges"]
        axes.stairs(entry["histogram"]["counts"], edges, fill=True, color=PALETTE[0])
        if edges[0] > 0 and edges[-1] > WIDE_RANGE * edges[0]:
            logarithmic(axes)
        axes.set_title(label(entry["truncation"]))
        axes.set_xlabel("weight w")
        axes.set_ylabel("partial pairs")
    return figure


def _colours(summary: Summary) -> dict[str | None, str]:
    """Return the colour of each scorer, the same in all figures."""
    scorers = [cell["scorer"] for cell in summary["cells"]]
    scorers += [rate["scorer"] for rate in summary["agreement"]]
    return colours([*scorers, *(model["name"] for model in summary["models"])])
