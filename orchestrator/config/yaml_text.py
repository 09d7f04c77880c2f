"""YAML 1.2 as plain values, and plain values as YAML: its core schema.

PyYAML reads YAML 1.1, in which `yes` is true, `010` is eight and `1:30` ninety. Here they are a
text, ten and a text. What no config needs is refused while it is read: deep nesting, numbers of
more digits than any field has, keys that are no texts or are there twice, tags of Python objects.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

NESTING = 20  # levels; the config's own tree has 5
VALUES = 20_000  # with those that aliases repeat
CHARACTERS = 200_000  # of a file
SAID = 300  # characters of what PyYAML says
DIGITS = 40  # of a number, its sign and all
_TAG = "tag:yaml.org,2002:"
# Of the core schema: each tag with its pattern and the characters that it may begin with.
_PATTERNS: dict[str, tuple[str, str]] = {
    "null": ("~|null|Null|NULL|", "~nN"),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": ("<<", "<"),  # not of the core schema, and in wide use
}
_RESOLVED = {tag: re.compile(rf"(?:{pattern})\Z") for tag, (pattern, _) in _PATTERNS.items()}
_BASES = {"0o": 8, "0x": 16}


class BadYaml(ValueError):
    """A text that is no YAML, or holds what no config can; the message names the place."""


def read_yaml(text: str, place: str = "") -> Any:
    """The value of a YAML document: dicts, lists, texts, numbers, booleans and None.

    Args:
        text: the document.
        place: the field that it is the value of; "" where it is a whole config.

    Raises:
        BadYaml: it is none.
    """
    if len(text) > CHARACTERS:
        raise BadYaml(f"{_shown(place)}: {len(text):,} characters; valid: at most {CHARACTERS:,}")
    try:
        node = yaml.compose(text, _Composer)  # type: ignore[arg-type]  # a loader without objects
    except yaml.YAMLError as error:
        said = " ".join(str(error).replace(' in "<unicode string>"', "").split())
        raise BadYaml(f"not readable as YAML: {said[:SAID]}") from error
    return None if node is None else _Reading().plain(node, place, 0)


def read_scalar(text: str) -> str | int | float | bool | None:
    """What a text is where it stands plain in a YAML document.

    Raises:
        BadYaml: a number of too many digits.
    """
    for tag in ("null", "bool", "int", "float"):
        if _RESOLVED[tag].match(text):
            found: str | int | float | bool | None = _value(tag, text, "")
            return found
    return text


def write_yaml(value: Any) -> str:
    """Plain values as YAML that ``read_yaml`` reads back, and readers of YAML 1.1 as well."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """From text to nodes, not deeper than NESTING: PyYAML's own way goes as deep as Python does."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > NESTING:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise BadYaml(f"line {line}: nested deeper than {NESTING} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes a text that is another value to either version."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, (_, _first) in _PATTERNS.items():
    for _kind in (_Composer, _Dumper):
        _begins = [*_first, ""] if _name == "null" else list(_first)
        _kind.add_implicit_resolver(_TAG + _name, _RESOLVED[_name], _begins)


class _Reading:
    """From nodes to values, with the field that each is the value of."""

    def __init__(self) -> None:
        self._values = 0

    def plain(self, node: Node, place: str, depth: int) -> Any:
        """The value of a node; ``place`` is its field, "" the whole."""
        self._values += 1
        if self._values > VALUES:
            raise BadYaml(f"more than {VALUES:,} values, aliases counted")
        if depth > NESTING:  # of aliases: nodes alone are not so deep
            raise BadYaml(f"{_shown(place)}: nested deeper than {NESTING} levels")
        if isinstance(node, ScalarNode):
            return _value(node.tag.removeprefix(_TAG), node.value, place)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            parts = enumerate(node.value)
            return [self.plain(part, f"{place}[{i}]", depth + 1) for i, part in parts]
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, place, depth)
        raise _bad_tag(place, node.tag)

    def _mapping(self, node: MappingNode, place: str, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                for part in self._merged(value, place, depth):
                    merged = part | merged  # of several the first counts
                continue
            if not isinstance(key, ScalarNode) or key.tag != f"{_TAG}str":
                what = f" {key.value[:DIGITS]}" if isinstance(key, ScalarNode) else ""
                raise BadYaml(f"{_shown(place)}: key{what}: no text; valid: a field's name")
            name = _text(key.value, place)
            if name in own:
                raise BadYaml(f"{_shown(_below(place, name))}: given twice")
            own[name] = self.plain(value, _below(place, name), depth + 1)
        return merged | own

    def _merged(self, node: Node, place: str, depth: int) -> Iterator[dict[str, Any]]:
        value = self.plain(node, place, depth + 1)
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise BadYaml(f"{_shown(place)}: `<<` merges mappings alone")
            yield part


def _value(tag: str, text: str, place: str) -> Any:
    """The value of a scalar."""
    if tag == "str" or tag == "merge":
        return _text(text, place)
    if tag not in _RESOLVED:
        raise _bad_tag(place, tag)
    if not _RESOLVED[tag].match(text):
        raise BadYaml(f"{_shown(place)}: {text[:DIGITS]!r} is no {tag}")
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if len(text) > DIGITS:
        valid = f"valid: at most {DIGITS}"
        raise BadYaml(f"{_shown(place)} = {text[:DIGITS]}...: {len(text):,} digits; {valid}")
    if tag == "int":
        return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadYaml(f"{_shown(place)}: no Unicode text: {error.reason}") from None
    return text


def _bad_tag(place: str, tag: str) -> BadYaml:
    return BadYaml(f"{_shown(place)}: tag {tag[:DIGITS]!r}; valid: no tag")


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _shown(place: str) -> str:
    if len(place) > 3 * DIGITS:
        place = f"{place[: 2 * DIGITS]}..."
    return place or "value"
