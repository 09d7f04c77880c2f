"""Extractions of answers by name."""

import pytest

from orchestrator.data.answers import ANSWERS, answers_in
from orchestrator.data.final_answers import boxed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        (r"cut off \boxed{12", None),
        ("42", None),
        ("", None),
    ],
)
def test_the_last_box_to_the_brace_that_closes_it(text: str, expected: str | None) -> None:
    assert boxed(text) == expected


def test_the_last_number_needs_no_mark() -> None:
    texts = ["The answer is 5. Check: 2 + 3 = 5, and 1,200.50 is not.", "none"]
    assert answers_in("last_number", texts) == ["1200.5", None]
    assert answers_in("gsm8k", texts) == ["5", None]
    assert answers_in("boxed", [r"\boxed{x} and 5", "5"]) == ["x", None]


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=f"answers = 'sympy'.*valid: {', '.join(ANSWERS)}"):
        answers_in("sympy", ["5"])
