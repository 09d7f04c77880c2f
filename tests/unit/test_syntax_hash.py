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


def test_what_is_nested_is_told_from_what_follows() -> None:
    nested = "if a:\n    b()\n    c()\n"
    assert syntax_hash(nested) != syntax_hash("if a:\n    b()\nc()\n")


def test_the_hash_is_the_same_on_every_version_of_python() -> None:
    # Computed with 3.11, 3.12 and 3.13.
    computed = "8d6c0983d270fb568f81fdf0f67928d3dc540f192f72ed6488cae42bfd7e8315"
    source = (
        "def f(a, /, *b, **c):\n    return f'{a!r:>{b}}' if {**c, 1: None} else lambda x: ...\n"
    )
    assert syntax_hash(source) == computed
