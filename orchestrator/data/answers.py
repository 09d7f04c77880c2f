"""Named extractions of the final answer from a response's text, for votes.

Each returns per response a text that equal answers share, or None if there is no answer.
"""

from collections.abc import Callable, Iterable, Sequence

from orchestrator.data.final_answers import boxed, extract_answer, last_number
from orchestrator.data.math_answers import canonical_answers

Extraction = Callable[[Iterable[str]], list[str | None]]


def _each(extract: Callable[[str], str | None]) -> Extraction:
    return lambda texts: [extract(text) for text in texts]


ANSWERS: dict[str, Extraction] = {
    "gsm8k": _each(extract_answer),
    "last_number": _each(last_number),
    "boxed": _each(boxed),
    "math": canonical_answers,
}


def check_extraction(name: str) -> None:
    """Check that an extraction exists.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in ANSWERS:
        raise ValueError(f"answers = {name!r}: no such extraction; valid: {', '.join(ANSWERS)}")


def answers_in(name: str, texts: Sequence[str]) -> list[str | None]:
    """Extract the answer of each text.

    Raises:
        ValueError: there is no extraction of this name.
    """
    check_extraction(name)
    return ANSWERS[name](texts)
