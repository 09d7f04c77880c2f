"""Format numbers, intervals and names for the terminal and the page."""

import json
import math
from collections.abc import Iterable, Mapping

from orchestrator.evaluation.statistics import sign_of
from orchestrator.report.entries import Mean, PairedEntry

NOTHING = "\N{EN DASH}"  # a value that was not measured
DIGITS = 2  # decimals of a metric
DIFFERENCE_DIGITS = 3  # decimals of a paired difference, whose bounds may be close to zero
FLOPS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
SMALLEST_P = 0.001  # smaller p-values are written as <0.001


def printable(text: object) -> str:
    """Return text on one line; control characters and lone surrogates become U+FFFD."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def number(value: float | None, digits: int = DIGITS) -> str:
    """Format a number with thousands separators; a rounded zero has no sign."""
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else str(value)
    return f"{value:z,.{digits}f}"


def interval(mean: Mean | None, digits: int = DIGITS) -> str:
    """Format a value with its interval, e.g. ``0.61 [0.55, 0.66]``."""
    if mean is None:
        return NOTHING
    value, low, high = (number(part, digits) for part in (mean["value"], mean["low"], mean["high"]))
    return f"{value} [{low}, {high}]"


def p_value(value: float) -> str:
    """Format a p-value, e.g. ``0.012`` or ``<0.001``."""
    return f"<{SMALLEST_P}" if value < SMALLEST_P else f"{value:.3f}"


def paired(test: PairedEntry | None) -> str:
    """Format difference, interval and p, e.g. ``+0.053 [+0.011, +0.095] p 0.012``."""
    if test is None:
        return NOTHING
    parts = (test["difference"], test["low"], test["high"])
    difference, low, high = (f"{part:+z.{DIFFERENCE_DIGITS}f}" for part in parts)
    return f"{difference} [{low}, {high}] p {p_value(test['p_value'])}"


def sign(test: PairedEntry | None) -> str:
    """Return ``+`` or ``-`` if interval and p-value are significant, else an empty string."""
    return "" if test is None else sign_of(test["low"], test["high"], test["p_value"])


def flops_unit(values: Iterable[float]) -> tuple[float, str]:
    """Return the largest unit in which all values are at least 1, e.g. ``(1e9, "GFLOP")``."""
    least = min((value for value in values if value > 0), default=0.0)
    return next(((scale, name) for scale, name in FLOPS if least >= scale), (1.0, "FLOP"))


def duration(seconds: float | None) -> str:
    """Format a wall time, e.g. ``0.42 s``, ``33 s``, ``13 min 32 s`` or ``2 h 05 min``."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.2f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def facts(values: Mapping[str, object] | None) -> str:
    """Format a small mapping on one line, e.g. ``beams 4, chunk 6``; nested values as JSON."""
    return ", ".join(f"{printable(k)} {_fact(v)}" for k, v in (values or {}).items()) or NOTHING


def _fact(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
