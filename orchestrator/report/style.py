"""Define the style of all figures, and convert them to inline SVG and to files.

Text and lines have two placeholder colours that the inline SVG replaces by CSS colours, so that a
figure suits a light and a dark page.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from orchestrator.report.notation import printable

INK = "#1f2429"  # text and axes: the page's text colour
LINE = "#d3d8de"  # grid: the page's rule colour
# Distinguishable with red-green colour blindness, and readable on white and near-black.
PALETTE = ("#3182bd", "#e6701a", "#1b9e77", "#cc5fa3", "#c79a00", "#7a6fd0", "#56b4c9", "#a65d3f")
NEUTRAL = "#87909a"  # cells without a scorer
LONGEST_NAME = 28  # characters of a name in a figure
DOTS_PER_INCH = 144  # resolution of PNG files
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "grid.color": LINE,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is not math
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",  # text stays searchable and small
}


def new_figure(
    columns: int = 1, rows: int = 1, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``width`` by ``height`` inches and its panels, row by row."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(axes.flat)


def logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers as tick labels."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def colours(names: Iterable[str | None]) -> dict[str | None, str]:
    """Return a colour for each name, in order of first appearance; grey for None."""
    distinct = [name for name in dict.fromkeys(names) if name is not None]
    return {None: NEUTRAL} | {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(distinct)}


def label(name: str | None) -> str:
    """Return a name for a figure, truncated to ``LONGEST_NAME`` characters."""
    text = "no scorer" if name is None else printable(name)
    return (
        text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
    )


def inline_svg(name: str, figure: Figure) -> str:
    """Return the figure as a self-contained ``<svg>`` element."""
    buffer = io.StringIO()
    # The salt makes ids unique on the page.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)  # not needed in HTML
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # ids such as figure_1 occur in every figure
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = svg.replace("xlink:href", "href")
    return svg.replace(INK, "currentColor").replace(LINE, "var(--rule)")


def save(name: str, figure: Figure, folder: Path) -> list[Path]:
    """Write ``name``.png and ``name``.svg with a white background; return their paths."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return paths
