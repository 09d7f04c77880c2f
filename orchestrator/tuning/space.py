"""The search space of a tuning: config fields with distributions, as `FIELD=NAME(ARGUMENTS)`.

Names and meanings of the distributions are those of Ray Tune. Each draw is keyed by seed, field,
trial and attempt, so a larger number of trials does not change the earlier ones. A trial that
equals an earlier one is redrawn.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.config.errors import ConfigError, shown
from orchestrator.fields.yaml_text import BadYaml, read_yaml
from orchestrator.randomness import generator

Scalar = str | int | float | bool | None
DIGITS = 6  # significant digits of a drawn float
REDRAWS = 100  # draws of a trial that equals an earlier one before it is left out
INTEGERS = range(-(2**63), 2**63)  # numpy draws 64-bit integers
_DIMENSION = re.compile(r"(?P<field>[^=\s]+)\s*=\s*(?P<name>\w+)\((?P<inside>.*)\)\s*")
VALID = (
    "valid: FIELD=choice(A,B,...), uniform(LOW,HIGH), loguniform(LOW,HIGH), quniform(LOW,HIGH,STEP)"
    " or randint(LOW,HIGH); only randint excludes HIGH"
)


@dataclass(frozen=True)
class Dimension:
    """A config field and its distribution.

    Attributes:
        field: path of the field, as in an override.
        name: name of the distribution.
        arguments: arguments of the distribution.
    """

    field: str
    name: str
    arguments: tuple[Scalar, ...]

    def draw(self, draws: np.random.Generator) -> Scalar:
        """Draw a value of the field."""
        return _DRAWS[self.name](draws, *self.arguments)


def parse_space(texts: Sequence[str]) -> list[Dimension]:
    """Parse the dimensions of a search space.

    Args:
        texts: dimensions such as ``training.prm.learning_rate=loguniform(1e-4,1e-2)``; values are
            YAML scalars.

    Raises:
        ConfigError: a text is not a distribution, its arguments are not valid, a field is named
            twice, or there are no dimensions.
    """
    space = [_dimension(text) for text in texts]
    fields = [dimension.field for dimension in space]
    for field in fields:
        if fields.count(field) > 1:
            raise ConfigError(
                f"--space {field}: named twice; valid: one distribution for each field"
            )
    if not space:
        raise ConfigError(f"--space: nothing is searched; {VALID}")
    return space


def draw_trials(space: Sequence[Dimension], count: int, seed: int) -> list[dict[str, Scalar]]:
    """Draw up to ``count`` different trials, as values by field.

    A trial that still repeats an earlier one after REDRAWS draws is left out.
    """
    trials: list[dict[str, Scalar]] = []
    seen: set[str] = set()
    for number in range(count):
        for attempt in range(REDRAWS):
            values = {
                dimension.field: dimension.draw(
                    generator(seed, "tune", dimension.field, number, attempt)
                )
                for dimension in space
            }
            if (key := json.dumps(values)) not in seen:
                seen.add(key)
                trials.append(values)
                break
    return trials


def as_overrides(values: dict[str, Scalar]) -> list[str]:
    """Return values by field as overrides of a config; JSON scalars are valid YAML."""
    return [f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in values.items()]


def _dimension(text: str) -> Dimension:
    """Parse one dimension."""
    parts = _DIMENSION.fullmatch(text)
    if parts is None or parts["name"] not in _DRAWS:
        raise ConfigError(f"--space {shown(text)}: not a distribution of a field; {VALID}")
    try:
        read = read_yaml(f"[{parts['inside']}]")
    except BadYaml as error:
        raise ConfigError(
            f"--space {shown(text)}: the arguments are not YAML scalars; {VALID}"
        ) from error
    if not isinstance(read, list) or not read:
        raise ConfigError(f"--space {shown(text)}: the arguments are not YAML scalars; {VALID}")
    arguments = tuple(read)
    if not _CHECKS[parts["name"]](arguments):
        raise ConfigError(f"--space {shown(text)}: {_VALID_ARGUMENTS[parts['name']]}")
    return Dimension(parts["field"], parts["name"], arguments)


def _are_numbers(arguments: tuple[Scalar, ...], count: int) -> bool:
    return len(arguments) == count and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in arguments
    )


def _are_scalars(arguments: tuple[Scalar, ...]) -> bool:
    return all(
        value is None
        or isinstance(value, (str, bool, int))
        or (isinstance(value, float) and math.isfinite(value))
        for value in arguments
    )


def _is_range(arguments: tuple[Scalar, ...], greater_than: float = -math.inf) -> bool:
    if not _are_numbers(arguments, 2):
        return False
    low, high = (float(value) for value in arguments)  # type: ignore[arg-type]
    return greater_than < low < high and math.isfinite(high - low)


def _is_integer_range(arguments: tuple[Scalar, ...]) -> bool:
    if len(arguments) != 2 or not all(type(value) is int for value in arguments):
        return False
    low, high = (int(value) for value in arguments)  # type: ignore[arg-type]
    return low < high and low in INTEGERS and high - 1 in INTEGERS


def _is_grid(arguments: tuple[Scalar, ...]) -> bool:
    if not _are_numbers(arguments, 3) or not _is_range(arguments[:2]):
        return False
    low, high, step = (float(value) for value in arguments)  # type: ignore[arg-type]
    return step > 0 and all(
        math.isfinite(end / step) and math.isclose(end / step, round(end / step))
        for end in (low, high)
    )


_CHECKS: dict[str, Callable[[tuple[Scalar, ...]], bool]] = {
    "choice": _are_scalars,
    "uniform": _is_range,
    "loguniform": lambda arguments: _is_range(arguments, greater_than=0),
    "quniform": _is_grid,
    "randint": _is_integer_range,
}
_VALID_ARGUMENTS = {
    "choice": "valid: one or more YAML scalars, numbers finite",
    "uniform": "valid: two numbers, LOW < HIGH, HIGH - LOW finite",
    "loguniform": "valid: two numbers, 0 < LOW < HIGH",
    "quniform": "valid: three numbers, LOW < HIGH, both multiples of STEP > 0",
    "randint": "valid: two integers, -2^63 <= LOW < HIGH <= 2^63",
}


def _choice(draws: np.random.Generator, *values: Scalar) -> Scalar:
    return values[int(draws.integers(len(values)))]


def _uniform(draws: np.random.Generator, low: float, high: float) -> float:
    return _rounded(draws.uniform(low, high), low, high)


def _loguniform(draws: np.random.Generator, low: float, high: float) -> float:
    return _rounded(math.exp(draws.uniform(math.log(low), math.log(high))), low, high)


def _quniform(draws: np.random.Generator, low: float, high: float, step: float) -> float:
    steps = round(draws.uniform(low, high) / step)
    # Rounded to 12 digits: 0.3, not 0.30000000000000004.
    return steps * step if isinstance(step, int) else float(f"{steps * step:.12g}")


def _randint(draws: np.random.Generator, low: int, high: int) -> int:
    return int(draws.integers(low, high))


def _rounded(value: float, low: float, high: float) -> float:
    """Round to DIGITS significant digits, within the limits."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


_DRAWS: dict[str, Callable[..., Scalar]] = {
    "choice": _choice,
    "uniform": _uniform,
    "loguniform": _loguniform,
    "quniform": _quniform,
    "randint": _randint,
}
