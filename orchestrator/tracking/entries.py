"""What may stand in a tracking server: legal names, lengths, flat params, nothing secret.

Plain functions on plain values; the limits are MLflow's own. Knows of no run and no server.
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
    """The nearest name that MLflow takes: other characters become `_`, path tricks go.

    MLflow uses names as paths: no leading slash, no empty, `.` or `..` part.
    """
    parts = _NOT_IN_NAMES.sub("_", name).split("/")
    kept = "/".join(part for part in parts if part not in ("", ".", ".."))
    return kept.lstrip(".")[:MAX_ENTITY_KEY_LENGTH].rstrip("/") or "_"


def with_legal_names(values: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under legal names, in the same order.

    Raises:
        ValueError: two names become the same legal name.
    """
    renamed: dict[str, Value] = {}
    origin: dict[str, str] = {}
    for name, value in values.items():
        legal = legal_name(name)
        if legal in renamed:
            raise ValueError(
                f"the names {origin[legal]!r} and {name!r} are both {legal!r} to MLflow;"
                " rename one of them"
            )
        renamed[legal], origin[legal] = value, name
    return renamed


def flat_params(params: Mapping[str, object]) -> dict[str, str]:
    """Params as MLflow keeps them: nested mappings become dotted names, values masked texts.

    Lists become JSON; a value over the limit is cut. Masking comes before cutting, so that a cut
    never hides the end of a secret from the mask.

    Raises:
        ValueError: two names become the same legal name.
    """
    return with_legal_names({name: param_text(value) for name, value in _leaves(params)})


def legal_tags(tags: Mapping[str, object]) -> dict[str, str]:
    """Tags with legal names and masked values cut to the limit; raises as `flat_params`."""
    return with_legal_names(
        {name: mask_secrets(str(tag))[:MAX_TAG_VAL_LENGTH] for name, tag in tags.items()}
    )


def finite_metrics(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Metrics with legal names, those that are not `measured` left out; raises as `flat_params`."""
    return with_legal_names(
        {name: float(value) for name, value in metrics.items() if measured(value)}
    )


def measured(value: float | None) -> TypeGuard[float]:
    """Whether a value is a number to show: not None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def param_text(value: object) -> str:
    """One param's value as a masked text within the limit."""
    text = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
    return mask_secrets(text)[:MAX_PARAM_VAL_LENGTH]


def _leaves(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
