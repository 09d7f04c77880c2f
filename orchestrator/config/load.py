"""Load a config: a YAML file, its `base:` files and overrides `key.sub=value` become a typed tree.

Every error is a ConfigError that names the field, its value and valid values.
"""

import os
import re
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from orchestrator.config.decoding import methods_of_list
from orchestrator.config.errors import ConfigError as ConfigError
from orchestrator.config.errors import reason_of, shown, shown_name
from orchestrator.config.explain import explained, valid_files
from orchestrator.config.no_effect import fields_without_effect
from orchestrator.config.tree import Config
from orchestrator.fields.yaml_text import CHARACTERS, NESTING, BadYaml, read_yaml, write_yaml

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "configs" / "helpdesk.yaml"  # the default of --config
BASES = 10  # files in a chain of `base:`
LONGEST_TEXT = 8_192  # characters of a value
RENAMED = {"search.wave_size": "max_concurrent"}  # fields of earlier versions
INTERPOLATIONS = 20  # most `${` in a value
_REFERENCE = "${"
_VARIABLE = re.compile(r"(?<!\\)\$\{oc\.env:\s*(\w+)\s*\}")  # without a default
_WRITTEN = re.compile(r"(\\*)\$\{")  # with the backslashes that may escape it


def load_config(file: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Load and check a config.

    Args:
        file: a YAML file; None: configs/helpdesk.yaml, the embedded world.
        overrides: ``key.sub=value``, values in YAML notation.

    Raises:
        ConfigError: a file is missing or unreadable, or a value is wrong.
    """
    merged = _read(Path(file or EMBEDDED), ())
    trees = [_renamed(_override(override)) for override in overrides]
    merged = _of_task(merged, _task_of(reduce(_merged, trees, {})))
    merged = reduce(_merged, trees, merged)
    try:
        return Config.model_validate(_resolved(merged))
    except ValidationError as error:
        raise ConfigError("\n".join(map(explained, error.errors()))) from error


def to_yaml(config: Config) -> str:
    """Return the config as YAML that ``load_config`` reads back, without fields of no effect."""
    plain = config.model_dump(mode="json")
    for item in fields_without_effect(config):
        *sections, field = item.field.split(".")
        section = reduce(lambda part, name: part[_key(part, name)], sections, plain)
        if section[field] is not None:  # null sets nothing, and may differ from the default
            del section[field]
    for name in Config().variants:  # null: the config leaves out this default variant
        plain["variants"].setdefault(name, None)
    return write_yaml(_escaped(plain))


def _renamed(tree: dict[str, object]) -> dict[str, object]:
    """Return a tree with the current names of fields, and a list of methods as a section."""
    tree = dict(tree)
    methods = tree.get("search")
    if isinstance(methods, list) and methods:
        tree["search"] = methods_of_list(methods)
    for old, new in RENAMED.items():
        section, _, field = old.partition(".")
        fields = tree.get(section)
        if isinstance(fields, dict) and field in fields:
            tree[section] = {new if n == field else n: value for n, value in fields.items()}
            print(f"config: {old} is now {section}.{new}", file=sys.stderr)
    return tree


def _key(part: Any, name: str) -> Any:
    return int(name) if isinstance(part, list) else name


def _read(file: Path, files_over: tuple[Path, ...]) -> dict[str, object]:
    """Read a YAML file and merge it over the file that its `base:` names."""
    named = f"{files_over[-1]}: base =" if files_over else "--config"  # where the user names it
    content = _renamed(_content(file, named))  # before it is merged over its base
    if file.resolve() in files_over:
        raise ConfigError(
            f"{file}: its chain of `base` files leads back to it; valid: a chain without a cycle"
        )
    if len(files_over) >= BASES:
        raise ConfigError(
            f"{file}: the chain of `base` files is too long; valid: at most {BASES} files"
        )
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(
            f"{file}: base = {shown(base)}: not a file name; valid: a file relative to"
            f" {file.parent}"
        )
    below = _read(file.parent / base, (*files_over, file.resolve()))
    return _merged(_of_task(below, _task_of(content)), content)


def _task_of(tree: dict[str, object]) -> object:
    """Return the name of the task that a tree sets; None if it sets none."""
    data = tree.get("data")
    return data.get("task") if isinstance(data, dict) else None


def _of_task(tree: dict[str, object], task: object) -> dict[str, object]:
    """Return the tree, without `data` if its fields are those of another task."""
    if task in (None, _task_of(tree) or Config().data.task_name()):
        return tree
    return {name: section for name, section in tree.items() if name != "data"}


def _content(file: Path, named: str) -> dict[str, object]:
    """Return the mapping in a YAML file, which the user names by ``named``."""
    try:
        if not file.is_file():
            names = ", ".join(sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
            raise ConfigError(
                f"{named} {shown_name(file)}: no such file; valid: a YAML file, such as"
                f" {names} in configs/"
            )
        if file.stat().st_size > 4 * CHARACTERS:
            raise ConfigError(f"{file}: too long; valid: at most {CHARACTERS:,} characters")
        content = read_yaml(file.read_text("utf-8-sig"))
    except (BadYaml, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    except (OSError, ValueError) as error:  # an impossible file name, or no permission
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{named} {shown_name(file)}: cannot be read: {reason_of(error)}"
        ) from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{file}: not a config; valid: a mapping of sections")
    return content or {}


def _override(text: str) -> dict[str, object]:
    """Return the tree that an override sets."""
    field, equals, value = text.partition("=")
    names = field.split(".")
    if not equals or not all(names) or any(c.isspace() for c in field) or len(names) > NESTING:
        raise ConfigError(f"override {shown(text)}: valid: key.sub=value")
    try:
        tree = {names[-1]: read_yaml(value, field)}
    except BadYaml as error:
        raise ConfigError(f"override {shown(text)}: {error}") from error
    for name in reversed(names[:-1]):
        tree = {name: tree}
    return tree


def _merged(under: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    """Merge two trees: sections field by field; any other value replaces the one below it."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _resolved(plain: dict[str, object]) -> object:
    """Replace each reference `${...}` by its value."""
    for field, text in _texts(plain, ""):
        if text.count(_REFERENCE) > INTERPOLATIONS:
            valid = f"too many references; valid: at most {INTERPOLATIONS}"
            raise ConfigError(f"{field} = {shown(text)}: {valid}")
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
        if lines := _unset_variables(plain):
            raise ConfigError("\n".join(lines)) from error
        raise ConfigError(f"config: {reason_of(error)}") from error
    for field, text in _texts(resolved, ""):
        if len(text) > LONGEST_TEXT:
            valid = f"too long; valid: at most {LONGEST_TEXT:,} characters"
            raise ConfigError(f"{field} = {shown(text)}: {valid}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(
                f"{field} = {shown(text)}: not valid Unicode; valid: text without surrogates"
            )
    return resolved


def _unset_variables(plain: dict[str, object]) -> list[str]:
    """Return an error for each field whose environment variable is not set and has no default."""
    lines = []
    for field, text in _texts(plain, ""):
        for name in _VARIABLE.findall(text):
            if name not in os.environ:
                files = valid_files(_task_of(plain), field)
                value = "FILE" if files else "VALUE"
                where = f", where FILE is {files}" if files else ""
                lines.append(
                    f"{field}: the environment variable {name} is not set; valid: {name}={value}"
                    f" before the command, or {field}={value} after it{where}"
                )
    return lines


def _texts(value: object, field: str) -> list[tuple[str, str]]:
    """Return all strings of a tree, including keys, with the field of each."""
    if isinstance(value, str):
        return [(field, value)]
    if isinstance(value, list):
        return [text for i, part in enumerate(value) for text in _texts(part, f"{field}[{i}]")]
    if not isinstance(value, dict):
        return []
    below = {name: f"{field}.{name}" if field else str(name) for name in value}
    keys = [(field or "config", name) for name in value if isinstance(name, str)]
    return keys + [text for name, part in value.items() for text in _texts(part, below[name])]


def _escaped(value: object) -> object:
    """Escape each `${`, so that it is not read as a reference."""
    if isinstance(value, dict):
        return {name: _escaped(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_escaped(part) for part in value]
    return _WRITTEN.sub(r"\1\1\\${", value) if isinstance(value, str) else value
