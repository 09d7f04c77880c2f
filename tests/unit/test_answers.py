"""Extractions of answers by name."""

import pytest

from orchestrator.data.answers import ANSWERS, boxed, extraction
from orchestrator.data.gsm8k import extract_answer


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
    text = "The answer is 5. Check: 2 + 3 = 5, and 1,200.50 is not."
    assert extraction("last_number")(text) == "1200.5"
    assert extraction("gsm8k")(text) == extract_answer(text) == "5"
    assert extraction("last_number")("none") is None


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=f"answers = 'sympy'.*valid: {', '.join(ANSWERS)}"):
        extraction("sympy")
