"""How a number, an interval or a name is written, the same in the terminal and on the page.

Knows single values only: no table, no summary.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.evaluation.statistics import sign_of

NOTHING = "\N{EN DASH}"  # what was not measured
DIGITS = 2  # of a metric
DIFFERENCE_DIGITS = 3  # of a paired difference: one more, so that a bound near zero keeps its sign
FLOPS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))
SMALLEST_P = 0.001  # under it only the bound is written


def printable(text: object) -> str:
    """The text on one line, with U+FFFD for each control character and lone surrogate."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def number(value: float | None, digits: int = DIGITS) -> str:
    """A number with thousands separators; a rounded zero has no sign."""
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else str(value)
    return f"{value:z,.{digits}f}"


def interval(found: Mapping[str, Any] | None, digits: int = DIGITS) -> str:
    """Value and bounds, e.g. ``0.61 [0.55, 0.66]``."""
    if found is None:
        return NOTHING
    value, low, high = (number(found[part], digits) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def p_value(value: float) -> str:
    """The p-value of a test, e.g. ``0.012`` or ``<0.001``."""
    return f"<{SMALLEST_P}" if value < SMALLEST_P else f"{value:.3f}"


def paired(test: Mapping[str, Any] | None) -> str:
    """Difference, bounds and p, e.g. ``+0.053 [+0.011, +0.095] p 0.012``."""
    if test is None:
        return NOTHING
    parts = (f"{test[part]:+z.{DIFFERENCE_DIGITS}f}" for part in ("difference", "low", "high"))
    difference, low, high = parts
    return f"{difference} [{low}, {high}] p {p_value(test['p_value'])}"


def sign(test: Mapping[str, Any] | None) -> str:
    """``+`` or ``-`` where interval and p-value agree on a difference, else nothing."""
    return "" if test is None else sign_of(test["low"], test["high"], test["p_value"])


def flops_unit(values: Iterable[float]) -> tuple[float, str]:
    """The unit in which the smallest of some FLOPs is at least 1, e.g. ``(1e9, "GFLOP")``."""
    least = min((value for value in values if value > 0), default=0.0)
    return next(((scale, name) for scale, name in FLOPS if least >= scale), (1.0, "FLOP"))


def duration(seconds: float | None) -> str:
    """Wall time, e.g. ``0.42 s``, ``33 s``, ``13 min 32 s`` or ``2 h 05 min``."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def facts(values: Mapping[str, Any] | None) -> str:
    """A small mapping on one line, e.g. ``beams 4, chunk 6``; nested values as JSON."""
    return ", ".join(f"{printable(k)} {_fact(v)}" for k, v in (values or {}).items()) or NOTHING


def _fact(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
