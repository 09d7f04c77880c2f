"""Convert values to what MLflow accepts: valid names, lengths, flat params, masked secrets.

Pure functions; the limits are MLflow's.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard, TypeVar

from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from orchestrator.masking import mask_secrets

_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # mlflow.utils.validation.validate_param_and_metric_name

Value = TypeVar("Value")


def legal_name(name: str) -> str:
    """Return the name in a form that MLflow accepts; other characters become `_`.

    MLflow uses names as paths, so a leading slash and empty, `.` or `..` components are removed.
    """
    parts = _NOT_IN_NAMES.sub("_", name).split("/")
    path = "/".join(part for part in parts if part not in ("", ".", ".."))
    return path.lstrip(".")[:MAX_ENTITY_KEY_LENGTH].rstrip("/") or "_"


def with_legal_names(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values with legal names, in the same order.

    Raises:
        ValueError: two names become the same legal name.
    """
    renamed: dict[str, Value] = {}
    origin: dict[str, str] = {}
    for name, value in values.items():
        legal = legal_name(name)
        if legal in renamed:
            raise ValueError(
                f"the names {origin[legal]!r} and {name!r} both become {legal!r} in MLflow; valid:"
                " names that differ in other characters"
            )
        renamed[legal], origin[legal] = value, name
    return renamed


def flat_params(params: Mapping[str, object]) -> dict[str, str]:
    """Return params as MLflow stores them: dotted names for nested mappings, values as masked text.

    Lists become JSON; long values are truncated. Masking comes first, so that truncation does not
    hide a secret from the mask.

    Raises:
        ValueError: two names become the same legal name.
    """
    return with_legal_names({name: param_text(value) for name, value in _leaves(params)})


def legal_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags with legal names and masked, truncated values; raises as `flat_params`."""
    return with_legal_names(
        {name: mask_secrets(str(tag))[:MAX_TAG_VAL_LENGTH] for name, tag in tags.items()}
    )


def finite_metrics(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Return the `measured` metrics with legal names; raises as `flat_params`."""
    return with_legal_names(
        {name: float(value) for name, value in metrics.items() if measured(value)}
    )


def measured(value: float | None) -> TypeGuard[float]:
    """Whether a value is a finite number: not None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def param_text(value: object) -> str:
    """Return the value of a param as masked, truncated text."""
    text = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
    return mask_secrets(text)[:MAX_PARAM_VAL_LENGTH]


def _leaves(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
