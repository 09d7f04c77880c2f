"""How the final answer is found in a response's text, by name: what votes count.

Each gives a text that equal answers share, None where there is no answer.
"""

from collections.abc import Callable

from orchestrator.data.gsm8k import extract_answer, last_number

Extraction = Callable[[str], str | None]
_BOX = "\\boxed{"


def boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{...}``, white space around it left out."""
    begin = text.rfind(_BOX)
    if begin < 0:
        return None
    start, depth = begin + len(_BOX), 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place].strip()
    return None  # cut off inside the box


ANSWERS: dict[str, Extraction] = {
    "gsm8k": extract_answer,
    "last_number": last_number,
    "boxed": boxed,
}


def extraction(name: str) -> Extraction:
    """The extraction of a name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in ANSWERS:
        raise ValueError(f"answers = {name!r}: no such extraction; valid: {', '.join(ANSWERS)}")
    return ANSWERS[name]
