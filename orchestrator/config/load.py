"""Loading a config: a YAML file, its `base:` files, overrides `key.sub=value`, then the typed tree.

Whatever is wrong becomes one ConfigError that names the field, its value and what is valid.
"""

import difflib
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from orchestrator.config.sections import AnswerData, HelpdeskData, HHData, Variant
from orchestrator.config.tree import Config
from orchestrator.config.unread import unread

ROOT = Path(__file__).resolve().parents[2]
DATA: dict[str, type[BaseModel]] = {
    "helpdesk": HelpdeskData,
    "hh_rlhf": HHData,
    "gsm8k": AnswerData,
    "math": AnswerData,
}
EMBEDDED = ROOT / "configs" / "helpdesk.yaml"  # what runs without --config


class ConfigError(ValueError):
    """The config cannot be run; the message names field, value and what is valid."""


def load_config(file: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Reads and checks a config.

    Args:
        file: a YAML file; None means the embedded world's, configs/helpdesk.yaml.
        overrides: ``key.sub=value``, values in YAML notation.

    Raises:
        ConfigError: a file is missing or unreadable, or a value is wrong.
    """
    try:
        merged = OmegaConf.merge(_read(Path(file or EMBEDDED), ()), _overrides(overrides))
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"config: {error}".splitlines()[0]) from error
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from error


def to_yaml(config: Config) -> str:
    """The resolved config as YAML, which ``load_config`` reads back: all fields that are read."""
    plain = config.model_dump(mode="json")
    for item in unread(config):
        *sections, field = item.field.split(".")
        section = reduce(getitem, sections, plain)
        if section[field] is not None:  # null sets nothing, and need not be the default
            del section[field]
    for name in Config().variants:  # one that was left out is read back as left out
        plain["variants"].setdefault(name, None)
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def _read(file: Path, above: tuple[Path, ...]) -> Any:
    """One YAML file merged over the file that its `base:` names, relative to itself."""
    if not file.is_file():
        known = ", ".join(sorted(p.name for p in (ROOT / "configs").glob("*.yaml")))
        raise ConfigError(f"--config {file}: no such file; configs/ has {known}")
    if file.resolve() in above:
        raise ConfigError(f"{file}: `base` goes in a circle")
    try:
        content = OmegaConf.load(file)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {error}") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{file}: a config is a mapping of sections")
    base = content.pop("base", None)
    if base is None:
        return content
    return OmegaConf.merge(_read(file.parent / str(base), (*above, file.resolve())), content)


def _overrides(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r}: valid is key.sub=value")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except YAMLError as error:
        raise ConfigError(f"overrides {' '.join(overrides)}: {error}".splitlines()[0]) from error


def _explain(problem: Any) -> str:
    place = [part for part in problem["loc"] if part not in DATA]
    field = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        return f"{field} = {problem['input']!r}: unknown key{_suggestion(problem['loc'])}"
    if problem["type"] == "value_error":
        return f"{field}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "missing":
        return f"{field}: {message}"
    return f"{field} = {problem['input']!r}: {message}"


def _suggestion(place: Sequence[Any]) -> str:
    """The valid keys of the section that holds an unknown key, the likeliest first."""
    section: Any = Config()
    for part in place[:-1]:
        if part in DATA:
            section = DATA[part].model_construct()  # the data of another task than the default
        elif isinstance(section, dict):
            section = section.get(part, Variant())
        else:
            section = getattr(section, str(part), None)
    if not isinstance(section, BaseModel):
        return ""
    valid = list(type(section).model_fields)
    close = difflib.get_close_matches(str(place[-1]), valid, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant} valid: {', '.join(valid)}" if meant else f"; valid: {', '.join(valid)}"
