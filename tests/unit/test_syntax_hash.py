"""What changes a module's hash (what runs) and what does not (words, types, layout)."""

from pathlib import Path

import pytest

from orchestrator.stages.syntax import syntax_hash

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''"""Cuts responses."""
import math

RATE = 0.5

class Cut:
    size: int = 4

    def of(self, text, *, rate=RATE):
        """Return the cut."""
        count = math.floor(rate * self.size)
        return text[:count]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Cuts responses."""', '"""Truncates responses."""'),
        ('"""Return the cut."""', '"""Return the truncated text."""\n        "a note"'),
        ("RATE = 0.5", "RATE = 0.5  # of the tokens"),
        ("RATE = 0.5", "RATE: float = 0.5"),
        ("size: int = 4", "size: float = 4"),
        ("text, *, rate=RATE", "text: str, *, rate: float = RATE"),
        ("rate=RATE):", "rate=RATE) -> str:"),
        ("        count =", "        count: int\n        count ="),
        ("text[:count]", "text[ : count ]"),
        ("text[:count]", "(text[:count])"),
        ("of(self", "of(\n        self"),
    ],
)
def test_words_and_types_keep_the_hash(old: str, new: str) -> None:
    assert old in SOURCE
    assert syntax_hash(SOURCE.replace(old, new)) == syntax_hash(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.5", "RATE = 0.25"),
        ("RATE = 0.5", "RATE = '0.5'"),
        ("size: int = 4", "size: int = 4.0"),
        ("size: int = 4", "size: int"),
        ("size: int = 4", "size: int = 4\n    last: int"),
        ("*, rate", "rate"),
        ("math.floor", "math.ceil"),
        ("rate * self.size", "rate + self.size"),
        ("return text[:count]", "return text[count:]"),
        ("        return text[:count]", "        if count:\n            return text[:count]"),
        ("import math", "import cmath as math"),
    ],
)
def test_what_runs_changes_the_hash(old: str, new: str) -> None:
    assert old in SOURCE
    assert syntax_hash(SOURCE.replace(old, new)) != syntax_hash(SOURCE)


def test_a_field_within_a_condition_counts_and_a_name_within_a_method_does_not() -> None:
    field = "class A:\n    if B:\n        x: int\n"
    assert syntax_hash(field) != syntax_hash("class A:\n    if B:\n        pass\n")
    local = "class A:\n    def f(self):\n        x: int\n        return 1\n"
    assert syntax_hash(local) == syntax_hash("class A:\n    def f(self):\n        return 1\n")


def test_a_docstring_in_the_place_of_a_pass_and_a_long_number_are_no_trouble() -> None:
    assert syntax_hash("class A: pass") == syntax_hash('class A:\n    """A."""\n')
    assert syntax_hash("x = 0x" + "f" * 5_000) != syntax_hash("x = 0x" + "e" * 5_000)


def test_what_is_nested_is_told_from_what_follows() -> None:
    nested = "if a:\n    b()\n    c()\n"
    assert syntax_hash(nested) != syntax_hash("if a:\n    b()\nc()\n")


def test_the_hash_is_the_same_on_every_version_of_python() -> None:
    # Computed with 3.11, 3.12 and 3.13.
    computed = "8a040799799f5d46fcb187b8ea3269cbf341645911861b1bcb5c83e70fd76ffe"
    source = (
        "def f(a, /, *b, **c):\n    return f'{a!r:>{b}}' if {**c, 1: None} else lambda x: ...\n"
    )
    assert syntax_hash(source) == computed
