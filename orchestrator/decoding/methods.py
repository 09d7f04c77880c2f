"""A search method by its name, with some of its fields set: what a command line or a call gives.

Defaults and bounds are those of the config's section of the method where it has one, else those of
the method's own parameters. Loads no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.config.decoding import GeneralConfig, SearchConfig
from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.unread import unread_of_general
from orchestrator.config.yaml_text import BadYaml, read_yaml
from orchestrator.search.registry import METHODS

UNSCORED_METHODS = ("base", "greedy", "vote")  # they ask for no score
BY_ENTROPY = ("cards",)  # a segment ends at an uncertain token
_OF_A_SWEEP = ("prompts",)  # fields of a section that are not the method's


def parameters_of(method: str, given: Mapping[str, Any]) -> Any:
    """The parameters of a method, the fields in ``given`` set.

    Raises:
        ConfigError: there is no such method or field, a value cannot be, or a field without a
            default is missing (CARDS: ``target_reward`` and ``beta``).
    """
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}: no such method; valid: {', '.join(METHODS)}")
    kind = METHODS[method].parameters
    names = [field.name for field in fields(kind)]
    for name, value in given.items():
        if name not in names:
            valid = ", ".join(names) or "none, it has nothing to set"
            raise ConfigError(
                f"method.{name} = {shown(value)}: {method} has no such field; valid: {valid}"
            )
    values = {name: _checked(kind, name, value) for name, value in given.items()}
    values = {**_from_section(method, values), **values}
    for field in fields(kind):
        if field.name not in values and field.default is MISSING:
            raise ConfigError(
                f"method.{field.name}: missing; {method} needs it as a number on the reward model's"
                f" own scale; valid: {field.name}=NUMBER"
            )
    return kind(**values)


def not_by_vllm(method: str) -> str:
    """Why vLLM does not run a method, as a clause; empty where it does."""
    if method in BY_ENTROPY:
        return f"{method} ends segments by entropy, which vLLM does not tell"
    return ""


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Fields from ``name=value`` or ``method.name=value``, values in YAML notation.

    Raises:
        ConfigError: one of them is not of that form.
    """
    found: dict[str, Any] = {}
    for override in overrides:
        name, equals, value = override.removeprefix("method.").partition("=")
        if not equals or not name:
            raise ConfigError(f"{shown(override)}: valid: the method's fields as name=value")
        try:
            found[name] = read_yaml(value, f"method.{name}")
        except BadYaml as error:
            raise ConfigError(str(error)) from error
    return found


def _checked(kind: type, name: str, value: Any) -> Any:
    """The value in the field's type; counts are 1 at least, and numbers are finite."""
    hint = get_type_hints(kind)[name]
    if isinstance(value, bool | str) and hint in (int, float):  # pydantic takes them for numbers
        wanted = "integer" if hint is int else "number"
        raise ConfigError(f"method.{name} = {shown(value)}: input should be a valid {wanted}")
    try:
        found = TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise _refused(name, value, error) from None
    if isinstance(found, int) and not isinstance(found, bool) and found < 1:
        raise ConfigError(f"method.{name} = {shown(value)}: valid: a number of at least 1")
    if isinstance(found, float) and not abs(found) < float("inf"):
        raise ConfigError(f"method.{name} = {shown(value)}: valid: a finite number")
    return found


def _from_section(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the method as the config's section gives them; checks those that are given."""
    if method not in SearchConfig.model_fields:
        return {}
    hint = SearchConfig.model_fields[method].annotation
    section = next(part for part in get_args(hint) if issubclass(part, BaseModel))
    known = {name: value for name, value in values.items() if name in section.model_fields}
    try:
        found = section.model_validate(known)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise _refused(name, known.get(name), error) from None
    if isinstance(found, GeneralConfig):
        for unread in unread_of_general("method", found):
            name = unread.field.partition(".")[2]
            if name in known:
                raise ConfigError(unread.message(known[name]))
    names = {field.name for field in fields(METHODS[method].parameters)}
    plain = found.model_dump(exclude={*_OF_A_SWEEP})
    return {n: value for n, value in plain.items() if n in names and value is not None}


def _refused(name: str, value: Any, error: ValidationError) -> ConfigError:
    message = error.errors()[0]["msg"]
    return ConfigError(f"method.{name} = {shown(value)}: {message[0].lower()}{message[1:]}")
