"""Loading a config: a YAML file, its `base:` files, overrides `key.sub=value`, then the typed tree.

Whatever is wrong becomes one ConfigError that names the field, its value and what is valid.
"""

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
from orchestrator.config.explain import explained
from orchestrator.config.tree import Config
from orchestrator.config.unread import unread
from orchestrator.config.yaml_text import CHARACTERS, NESTING, BadYaml, read_yaml, write_yaml

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "configs" / "helpdesk.yaml"  # what runs without --config
BASES = 10  # files that `base:` leads through
LONGEST_TEXT = 8_192  # characters of a value; a path has 4,096 at most
RENAMED = {"search.wave_size": "max_concurrent"}  # fields of earlier versions
INTERPOLATIONS = 20  # `${` of a value
_REFERENCE = "${"
_WRITTEN = re.compile(r"(\\*)\$\{")  # with the backslashes before it, which count there


def load_config(file: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a config.

    Args:
        file: a YAML file; None means the embedded world's, configs/helpdesk.yaml.
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
    """The resolved config as YAML, which ``load_config`` reads back: all fields that are read."""
    plain = config.model_dump(mode="json")
    for item in unread(config):
        *sections, field = item.field.split(".")
        section = reduce(lambda part, name: part[_key(part, name)], sections, plain)
        if section[field] is not None:  # null sets nothing, and need not be the default
            del section[field]
    for name in Config().variants:  # one that was left out is read back as left out
        plain["variants"].setdefault(name, None)
    return write_yaml(_escaped(plain))


def _renamed(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree in the form of today: fields by their names, a list of methods as a section."""
    tree = dict(tree)
    if isinstance(tree.get("search"), list) and tree["search"]:
        tree["search"] = methods_of_list(tree["search"])
    for old, new in RENAMED.items():
        section, _, field = old.partition(".")
        given = tree.get(section)
        if isinstance(given, dict) and field in given:
            given = {(new if name == field else name): value for name, value in given.items()}
            tree[section] = given
            print(f"config: {old} is now {section}.{new}", file=sys.stderr)
    return tree


def _key(part: Any, name: str) -> Any:
    return int(name) if isinstance(part, list) else name


def _read(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """One YAML file merged over the file that its `base:` names, relative to itself."""
    content = _renamed(_content(file))  # before it is merged over its base
    if file.resolve() in above:
        raise ConfigError(f"{file}: `base` goes in a circle")
    if len(above) >= BASES:
        raise ConfigError(
            f"{file}: valid: at most {BASES} files, each the `base` of the one before"
        )
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"base = {shown(base)}: valid: a file's name, relative to {file}")
    below = _read(file.parent / base, (*above, file.resolve()))
    return _merged(_of_task(below, _task_of(content)), content)


def _task_of(tree: dict[str, Any]) -> object:
    """The name of the task that a tree sets; None: it sets none."""
    data = tree.get("data")
    return data.get("task") if isinstance(data, dict) else None


def _of_task(tree: dict[str, Any], task: object) -> dict[str, Any]:
    """The tree without `data` if a task is set over it whose fields are others."""
    if task in (None, _task_of(tree) or Config().data.task_name()):
        return tree
    return {name: section for name, section in tree.items() if name != "data"}


def _content(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            known = ", ".join(sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
            raise ConfigError(f"--config {shown_name(file)}: no such file; configs/ has {known}")
        if file.stat().st_size > 4 * CHARACTERS:
            raise ConfigError(f"{file}: valid: at most {CHARACTERS:,} characters")
        content = read_yaml(file.read_text("utf-8-sig"))
    except (BadYaml, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
    except (OSError, ValueError) as error:  # a name that no file can have, no right to read it
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"--config {shown_name(file)}: cannot be read: {reason_of(error)}"
        ) from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{file}: a config is a mapping of sections")
    return content or {}


def _override(text: str) -> dict[str, Any]:
    """An override as the part of the tree that it sets."""
    field, equals, value = text.partition("=")
    names = field.split(".")
    if not equals or not all(names) or any(c.isspace() for c in field) or len(names) > NESTING:
        raise ConfigError(f"override {shown(text)}: valid is key.sub=value")
    try:
        found = read_yaml(value, field)
    except BadYaml as error:
        raise ConfigError(f"override {shown(text)}: {error}") from error
    for name in reversed(names):
        found = {name: found}
    return dict(found)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Sections field by field; whatever else is over it takes a field's place."""
    found = dict(under)
    for name, value in over.items():
        below = found.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        found[name] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return found


def _resolved(plain: dict[str, Any]) -> Any:
    """With what `${...}` stands for."""
    for field, text in _texts(plain, ""):
        if text.count(_REFERENCE) > INTERPOLATIONS:
            valid = f"valid: at most {INTERPOLATIONS} references"
            raise ConfigError(f"{field} = {shown(text)}: {valid}")
    try:
        found = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
        raise ConfigError(f"config: {reason_of(error)}") from error
    for field, text in _texts(found, ""):
        if len(text) > LONGEST_TEXT:
            valid = f"valid: at most {LONGEST_TEXT:,} characters"
            raise ConfigError(f"{field} = {shown(text)}: {valid}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError(f"{field} = {shown(text)}: no Unicode text")
    return found


def _texts(value: Any, place: str) -> list[tuple[str, str]]:
    """All texts of a tree, keys too, by field."""
    if isinstance(value, str):
        return [(place, value)]
    if isinstance(value, list):
        return [found for i, part in enumerate(value) for found in _texts(part, f"{place}[{i}]")]
    if not isinstance(value, dict):
        return []
    below = {name: f"{place}.{name}" if place else str(name) for name in value}
    keys = [(place or "config", name) for name in value if isinstance(name, str)]
    return keys + [found for name, part in value.items() for found in _texts(part, below[name])]


def _escaped(value: Any) -> Any:
    """With each `${` of a text as it is written where it is no reference."""
    if isinstance(value, dict):
        return {name: _escaped(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_escaped(part) for part in value]
    return _WRITTEN.sub(r"\1\1\\${", value) if isinstance(value, str) else value
