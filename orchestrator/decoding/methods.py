"""Search methods from a name and fields, as a command line or a call specifies them.

Loads no model.
"""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.no_effect import no_effect_of_method
from orchestrator.fields.yaml_text import BadYaml, read_yaml
from orchestrator.search.calibration import Calibration, NotCalibrated
from orchestrator.search.method import METHODS, AnySearchMethod, methods_in_order

_OF_A_SWEEP = ("name", "prompts")  # fields that do not affect one search


def method_fields(method: str) -> list[str]:
    """Return the names of the fields that a call may set."""
    return [name for name in METHODS[method].model_fields if name not in _OF_A_SWEEP]


def unscored_methods() -> list[str]:
    """Return the names of the methods that need no scores, in the order of tables."""
    return [name for name, method in methods_in_order().items() if not method.needs_scorer]


def needs_scorer(method: str) -> bool:
    """Return whether a method needs scores; True for an unknown name."""
    return method not in METHODS or METHODS[method].needs_scorer


def method_of(name: str, fields: Mapping[str, object]) -> AnySearchMethod:
    """Return the method of a name with ``fields`` set, ready to run.

    Raises:
        ConfigError: there is no such method or field, a value is not valid, or a field that has
            no default outside a sweep is missing (CARDS: ``target_reward`` and ``beta``).
    """
    if not isinstance(name, str) or name not in METHODS:
        valid = ", ".join(methods_in_order())
        raise ConfigError(f"method = {shown(name)}: no such method; valid: {valid}")
    valid_fields = method_fields(name)
    for field, value in fields.items():
        if field not in valid_fields:
            valid = ", ".join(valid_fields) or "none, it has nothing to set"
            raise ConfigError(
                f"method.{field} = {shown(value)}: {name} has no such field; valid: {valid}"
            )
    try:
        method = METHODS[name].model_validate(dict(fields))
    except ValidationError as error:
        problem = error.errors()[0]
        field, message = str(problem["loc"][0]), problem["msg"]
        message = message[0].lower() + message[1:]
        if problem["type"] == "missing":
            raise ConfigError(f"method.{field}: {message}") from None
        raise ConfigError(f"method.{field} = {shown(fields[field])}: {message}") from None
    for item in no_effect_of_method("method", method):
        field = item.field.partition(".")[2]
        if field in fields:
            raise ConfigError(item.message(fields[field]))
    try:
        return method.calibrated(Calibration())
    except NotCalibrated as error:
        raise ConfigError(
            f"method.{error.field}: missing; {error.reason}; valid: {error.field}=NUMBER"
        ) from None


def parsed(overrides: Sequence[str]) -> dict[str, object]:
    """Parse fields from ``name=value`` or ``method.name=value``, with values in YAML.

    Raises:
        ConfigError: an override is not of this form.
    """
    fields: dict[str, object] = {}
    for override in overrides:
        name, equals, value = override.removeprefix("method.").partition("=")
        if not equals or not name:
            raise ConfigError(f"{shown(override)}: valid: the method's fields as name=value")
        try:
            fields[name] = read_yaml(value, f"method.{name}")
        except BadYaml as error:
            raise ConfigError(str(error)) from error
    return fields
