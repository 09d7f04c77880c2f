"""Draw forest plots: paired differences of each method and scorer to each baseline.

One figure per metric, one panel per baseline (section 5).
"""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orchestrator.evaluation.metric import METRICS
from orchestrator.report.entries import ComparisonEntry, Summary
from orchestrator.report.notation import sign
from orchestrator.report.style import INK, NEUTRAL, PALETTE, label, new_figure
from orchestrator.report.table import method_order

ROW_HEIGHT = 0.27  # inches
FRAME_HEIGHT = 1.1  # inches, title and axis
TICKS = 4  # intervals between ticks; labels of differences are wide
# Colours of differences above zero, below zero, and not significant.
SIGN_COLOURS = {"+": PALETTE[2], "-": PALETTE[1], "": NEUTRAL}


def forests(summary: Summary) -> dict[str, Figure]:
    """Return a figure ``paired_<metric>`` for each metric with paired tests."""
    tests = [test for test in summary["comparisons"] if test["test"] is not None]
    drawn: dict[str, Figure] = {}
    for metric in dict.fromkeys(test["metric"] for test in tests):
        name = f"paired_{re.sub(r'[^A-Za-z0-9_-]', '_', metric)}"  # it is a file name
        chosen = method_order(test for test in tests if test["metric"] == metric)
        drawn[name] = _forest(METRICS[metric].label if metric in METRICS else label(metric), chosen)
    return drawn


def _forest(metric: str, tests: Sequence[ComparisonEntry]) -> Figure:
    baselines = list(dict.fromkeys(test["baseline"] for test in tests))
    names = list(dict.fromkeys((test["method"], test["scorer"]) for test in tests))
    width = 2.2 + 2.7 * len(baselines)
    height = FRAME_HEIGHT + ROW_HEIGHT * len(names)
    figure, panels = new_figure(len(baselines), width=width, height=height)
    for axes, baseline in zip(panels, baselines, strict=True):
        _panel(axes, names, [test for test in tests if test["baseline"] == baseline])
        axes.set_title(f"against {label(baseline)}")
        axes.set_xlabel(f"difference in {metric}")
        axes.set_yticks(range(len(names)), [f"{label(m)}, {label(s)}" for m, s in names])
        axes.xaxis.set_major_locator(MaxNLocator(TICKS))
        axes.tick_params(labelleft=axes is panels[0])
        axes.set_ylim(len(names) - 0.5, -0.5)
    return figure


def _panel(
    axes: Axes, names: Sequence[tuple[str, str | None]], tests: Sequence[ComparisonEntry]
) -> None:
    axes.axvline(0, color=INK, linewidth=1)
    for entry in tests:
        test = entry["test"]
        if test is None:
            continue
        difference = test["difference"]
        axes.errorbar(
            [difference], [names.index((entry["method"], entry["scorer"]))],
            xerr=[[difference - test["low"]], [test["high"] - difference]],
            fmt="o", color=SIGN_COLOURS[sign(test)], markersize=5, elinewidth=1.6, capsize=2.5,
        )  # fmt: skip
