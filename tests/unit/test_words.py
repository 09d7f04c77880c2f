"""No identifier is a word that the glossary replaces: names say what they hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    file
    for package in ("orchestrator", "actors", "jobs")
    for file in (ROOT / package).rglob("*.py")
)
# As a whole identifier: they do not say what is held.
EMPTY = {
    "place", "places", "found", "own", "whole", "given", "told", "said", "asked", "like", "rest",
    "known", "grown", "above", "beginning", "beginnings", "cut_off",
}  # fmt: skip
# As any word of an identifier: the field has another one (docs/glossary.md).
REPLACED = {
    "shelf", "shelves", "ledger", "lockstep", "wave", "waves", "desk", "forgotten", "halves",
    "ears",
}  # fmt: skip


def defined(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module defines: variables, arguments, functions, classes, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def forbidden(name: str) -> bool:
    return name.strip("_").lower() in EMPTY or bool(words_of(name) & REPLACED)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_name_is_a_word_that_the_glossary_replaces(file: Path) -> None:
    names = defined(ast.parse(file.read_text()))
    bad = [f"{name} (line {line})" for name, line in names if forbidden(name)]
    assert not bad, f"{file.relative_to(ROOT)}: {', '.join(bad)}"


def test_the_check_sees_what_it_forbids() -> None:
    source = "class Shelf:\n    def told(self, place, *, n):\n        self._own, found = place, 1\n"
    names = {name for name, _ in defined(ast.parse(source)) if forbidden(name)}
    assert names == {"Shelf", "told", "place", "_own", "found"}
