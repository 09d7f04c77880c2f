"""Read and write YAML 1.2 (the core schema) as plain values.

PyYAML reads YAML 1.1, in which `yes` is true, `010` is eight and `1:30` is ninety. Here they are a
string, ten and a string. What no config needs is refused: deep nesting, numbers with very many
digits, keys that are not strings, duplicate keys, and tags of Python objects.
"""

import re
from collections.abc import Iterator

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

Scalar = str | int | float | bool | None
NESTING = 20  # levels; the config's own tree has 5
VALUES = 20_000  # including those that aliases repeat
CHARACTERS = 200_000  # maximum length of a file
MESSAGE = 300  # characters of a message of PyYAML
DIGITS = 40  # characters of a number, with its sign
_TAG = "tag:yaml.org,2002:"
# The core schema: the pattern of each tag and the characters that a value may begin with.
_PATTERNS: dict[str, tuple[str, str]] = {
    "null": ("~|null|Null|NULL|", "~nN"),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": ("<<", "<"),  # not in the core schema, but common
}
_RESOLVED = {tag: re.compile(rf"(?:{pattern})\Z") for tag, (pattern, _) in _PATTERNS.items()}
_BASES = {"0o": 8, "0x": 16}


class BadYaml(ValueError):
    """A text is not YAML, or has values that no config can have; the message names the field."""


def read_yaml(text: str, field: str = "") -> object:
    """Return the value of a YAML document: dicts, lists, strings, numbers, booleans and None.

    Args:
        text: the document.
        field: the field whose value it is; "" for a complete config.

    Raises:
        BadYaml: the text is not valid.
    """
    if len(text) > CHARACTERS:
        raise BadYaml(f"{_shown(field)}: {len(text):,} characters; valid: at most {CHARACTERS:,}")
    try:
        node = yaml.compose(text, _Composer)  # type: ignore[arg-type]  # a loader without objects
    except yaml.YAMLError as error:
        message = " ".join(str(error).replace(' in "<unicode string>"', "").split())
        raise BadYaml(f"not valid YAML: {message[:MESSAGE]}") from error
    return None if node is None else _Reader().plain(node, field, 0)


def read_scalar(text: str) -> Scalar:
    """Return the value of an unquoted text in YAML.

    Raises:
        BadYaml: a number has too many digits.
    """
    for tag in ("null", "bool", "int", "float"):
        if _RESOLVED[tag].match(text):
            return _value(tag, text, "")
    return text


def write_yaml(value: object) -> str:
    """Return plain values as YAML that YAML 1.1 and ``read_yaml`` read as the same values."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Converts text to nodes, and refuses nesting deeper than NESTING."""

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
    """Quotes a string that either version of YAML would read as another value."""

    def ignore_aliases(self, data: object) -> bool:
        return True


for _name, (_, _first) in _PATTERNS.items():
    for _kind in (_Composer, _Dumper):
        _begins = [*_first, ""] if _name == "null" else list(_first)
        _kind.add_implicit_resolver(_TAG + _name, _RESOLVED[_name], _begins)


class _Reader:
    """Converts nodes to values; errors name the field of a value."""

    def __init__(self) -> None:
        self._values = 0

    def plain(self, node: Node, field: str, depth: int) -> object:
        """Return the value of a node; ``field`` is its path, "" for the root."""
        self._values += 1
        if self._values > VALUES:
            raise BadYaml(f"more than {VALUES:,} values, including those of aliases; valid: fewer")
        if depth > NESTING:  # through aliases; the composer checks the depth of nodes
            raise BadYaml(f"{_shown(field)}: nested deeper than {NESTING} levels")
        if isinstance(node, ScalarNode):
            return _value(node.tag.removeprefix(_TAG), node.value, field)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            parts = enumerate(node.value)
            return [self.plain(part, f"{field}[{i}]", depth + 1) for i, part in parts]
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, field, depth)
        raise _bad_tag(field, node.tag)

    def _mapping(self, node: MappingNode, field: str, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        merged: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                for part in self._merged(value, field, depth):
                    merged = part | merged  # the first of several mappings takes precedence
                continue
            if not isinstance(key, ScalarNode) or key.tag != f"{_TAG}str":
                what = f" {key.value[:DIGITS]}" if isinstance(key, ScalarNode) else ""
                raise BadYaml(f"{_shown(field)}: key{what} is not a string; valid: a field name")
            name = _text(key.value, field)
            if name in values:
                raise BadYaml(f"{_shown(_below(field, name))}: appears twice; valid: once")
            values[name] = self.plain(value, _below(field, name), depth + 1)
        return merged | values

    def _merged(self, node: Node, field: str, depth: int) -> Iterator[dict[str, object]]:
        value = self.plain(node, field, depth + 1)
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise BadYaml(
                    f"{_shown(field)}: `<<` needs a mapping; valid: a mapping or a list of mappings"
                )
            yield part


def _value(tag: str, text: str, field: str) -> Scalar:
    """Return the value of a scalar."""
    if tag == "str" or tag == "merge":
        return _text(text, field)
    if tag not in _RESOLVED:
        raise _bad_tag(field, tag)
    if not _RESOLVED[tag].match(text):
        raise BadYaml(f"{_shown(field)}: {text[:DIGITS]!r} is not a valid {tag}")
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if len(text) > DIGITS:
        valid = f"valid: at most {DIGITS}"
        raise BadYaml(f"{_shown(field)} = {text[:DIGITS]}...: {len(text):,} digits; {valid}")
    if tag == "int":
        return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _text(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadYaml(f"{_shown(field)}: not valid Unicode: {error.reason}") from None
    return text


def _bad_tag(field: str, tag: str) -> BadYaml:
    return BadYaml(f"{_shown(field)}: tag {tag[:DIGITS]!r}; valid: no tag")


def _below(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _shown(field: str) -> str:
    if len(field) > 3 * DIGITS:
        field = f"{field[: 2 * DIGITS]}..."
    return field or "value"
