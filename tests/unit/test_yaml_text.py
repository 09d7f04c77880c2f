"""YAML 1.2's core schema: what a plain scalar is, and what no config needs."""

import pytest
import yaml

from orchestrator.fields.yaml_text import (
    CHARACTERS,
    NESTING,
    BadYaml,
    read_scalar,
    read_yaml,
    write_yaml,
)

# Of YAML 1.2.2, section 10.3.2, and what YAML 1.1 has otherwise.
SCALARS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None, "nULL": "nULL",
    "true": True, "True": True, "FALSE": False, "tRUE": "tRUE",
    "yes": "yes", "No": "No", "on": "on", "off": "off", "y": "y",
    "0": 0, "-7": -7, "+12": 12, "010": 10, "0o17": 15, "0xfF": 255, "0b11": "0b11",
    "1_000": "1_000", "1:30": "1:30", "190:20:30": "190:20:30", "0o8": "0o8",
    "1e3": 1000.0, "1.5": 1.5, "-.5": -0.5, "5.": 5.0, "1e-4": 1e-4, "0.1E+2": 10.0,
    ".inf": float("inf"), "-.INF": float("-inf"), "1e": "1e", ".": ".", "-": "-",
    "2001-01-01": "2001-01-01", "=": "=", "org/model": "org/model",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_a_plain_scalar_is_what_the_core_schema_says(text: str) -> None:
    expected = SCALARS[text]
    found = read_scalar(text)
    assert found == expected and type(found) is type(expected)
    if text != "-":  # the sign of a list there
        read = read_yaml(f"a: {text}\n")
        assert isinstance(read, dict) and read == {"a": expected}
        assert type(read["a"]) is type(expected)
    if text and '"' not in text:
        assert read_yaml(f'a: "{text}"\n') == {"a": text}


def test_nan_is_a_number() -> None:
    assert str(read_scalar(".nan")) == "nan"


@pytest.mark.parametrize("text", [text for text in SCALARS if text])
def test_what_is_written_is_read_back_by_both_versions(text: str) -> None:
    plain = {"a": text, "b": [SCALARS[text], {"c": text}], text: 1}
    written = write_yaml(plain)
    assert read_yaml(written) == plain
    assert yaml.safe_load(written) == plain


def test_collections_anchors_and_merges_are_read() -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: *a\nc: {<<: *a, x: 4}\nd: {<<: [{x: 5}, *a]}\n"
    x = {"x": 1, "y": [2, 3]}
    assert read_yaml(text) == {"a": x, "b": x, "c": {**x, "x": 4}, "d": {**x, "x": 5}}
    assert read_yaml("# nothing\n") is None


def lines(count: int) -> str:
    """Each line repeats the one before ten times."""
    rows = ["a0: &a0 [x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, count)]
    return "\n".join(rows)


BAD = {
    "[" * 800 + "]" * 800: f"line 1: nested deeper than {NESTING} levels",
    "- " * 800 + "x": "nested deeper than",
    "a: &a [*a]": "nested deeper than",
    lines(12): "more than 20,000 values",
    "a: " + "9" * 5000: f"a = {'9' * 40}...: 5,000 digits; valid",
    "a: -0x" + "f" * 50: None,
    "a: [1, 0x" + "f" * 5000 + "]": "a[1] = 0xfff",
    "a: 1." + "5" * 400: "402 digits",
    "a: 1\na: 2": "a: appears twice",
    "s: {a: 1, a: 2}": "s.a: appears twice",
    "1: x": "value: key 1 is not a string",
    "s: {null: x}": "s: key null is not a string",
    "[1]: x": "is not a string; valid: a field name",
    "a: !!python/object:os.system {}": "a: tag '",
    "a: !!binary aGFsbG8=": "a: tag '",
    "a: !!int x": "a: 'x' is not a valid int",
    'a: "\\ud800"': "a: not valid Unicode",
    "a: [": "not valid YAML",
    "a: *b": "not valid YAML",
    "a: 1\n---\nb: 2": "not valid YAML",
    "a: \x07": "not valid YAML",
    "a: {<<: 1}": "a: `<<` needs a mapping",
    "x" * (CHARACTERS + 1): "characters; valid: at most",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:20])
def test_what_no_config_needs_is_refused_with_its_place(text: str) -> None:
    expected = BAD[text]
    if expected is None:  # no number, so a text
        assert read_yaml(text) == {"a": text.removeprefix("a: ")}
        return
    with pytest.raises(BadYaml) as error:
        read_yaml(text)
    message = str(error.value)
    assert expected in message and len(message) < 400 and len(message.splitlines()) == 1


def test_a_place_begins_where_the_caller_says() -> None:
    with pytest.raises(BadYaml, match=r"^seed = 9{40}\.\.\.: 41 digits"):
        read_yaml("9" * 41, "seed")
