r"""Extraction of the final answer from a response's text, and of its exact number.

A response marks its answer with ``####``, ``\boxed{}``, ``A:`` at the beginning of a line, "answer
is" or "Answer:"; otherwise it is the last number. ``math_answers.py`` compares other answers.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

MAX_DIGITS = 1_000  # limit for exact comparison: a policy may write endless digits

_BOX = "\\boxed{"
_GOLD_MARK = re.compile(r"####")
_MARKS = (  # after #### and the box, in order of priority
    re.compile(r"^[ \t]*A:", re.MULTILINE),
    re.compile(r"\banswer\b[*_ \t]*(?:is\b|:)", re.IGNORECASE),
)
_SENTENCE_END = re.compile(r"[.!?]\s")
# Mathematics between delimiters, at the beginning of an answer. Between single $, pandoc's rule (no
# white space next to them inside, no digit after them), by which "$5 and $6" is prose.
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$(?=\S)((?:\\.|[^$\\])+?)(?<!\s)\$(?![0-9])",
    re.DOTALL,
)
_NUMERAL = (
    r"(?:(?<![\w.)])-)?"  # a sign, not the minus of a subtraction
    r"(?<![0-9])(?>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
    r"(?:\.[0-9]+|/0*[1-9][0-9]*)?|\.[0-9]+)"
)
# 1e5 is one number. Exponents of four digits are excluded, as their numbers take much memory.
_NUMBER = re.compile(
    rf"(?<![0-9][eE])(?<![0-9][eE][-+]){_NUMERAL}(?:[eE][-+]?[0-9]{{1,3}}(?![0-9]))?(?![eE][-+]?[0-9])"
)
# Reference answers: only a numeral, or a numeral, a space and a unit.
_GOLD = re.compile(rf"({_NUMERAL})(?:\s*%|\s+[A-Za-z][A-Za-z .-]*)?")
_FRACTION = re.compile(r"\\[dt]?frac(?:\{([0-9]+)\}|\s*([0-9]))(?:\{([0-9]+)\}|\s*([0-9]))")
# LaTeX next to a number that does not change its value.
_UNITS = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}|\\[,!; ]|\\?[$%]|\^\{?\\circ\}?")
_CALCULATION = re.compile(r"[\\^_{}*]|^\s*[(\[]")  # in prose: its first number is not its value


@dataclass(frozen=True)
class Marked:
    """An answer that a response marks. ``latex``: it is in a box or between delimiters."""

    text: str
    latex: bool


def final_answer(text: str) -> Marked | None:
    r"""Return the answer after the last ``####``, in the last box, after ``A:`` or "answer is".

    If several marks occur, the first in this order that is followed by an answer is used. An
    answer in prose ends with the sentence or line. None if there is no mark, or nothing after it.
    """
    return next(iter(_marked(text)), None)


def boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}`` without outer white space, or None."""
    begin = text.rfind(_BOX)
    if begin < 0:
        return None
    start, depth = begin + len(_BOX), 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[start:end].strip()
    return None  # truncated inside the box


def extract_answer(text: str) -> str | None:
    """Return the final answer of a solution as "1234.5", "-3" or "3/4"; None without a number.

    It is the number of the first mark of ``final_answer`` that has one, else the last number of the
    text. In prose it is the first number after the last ``=``. Commas, $, % and decimals of zero
    are dropped.
    """
    numbers = (number_of(marked) for marked in _marked(text))
    return next((number for number in numbers if number is not None), None) or last_number(text)


def last_number(text: str) -> str | None:
    """Return the last number of a text in the form of ``extract_answer``, or None."""
    numbers = _NUMBER.findall(_without_dollars(text))
    return _canonical(numbers[-1]) if numbers else None


def number_of(marked: Marked) -> str | None:
    """Return the number of an answer; None if it is not a number or must be calculated."""
    if not marked.latex:
        prose = marked.text.replace("**", "").rpartition("=")[2]
        if not _CALCULATION.search(prose):
            number = _NUMBER.search(prose)
            return _canonical(number.group()) if number else None
    text = _without_dollars(_UNITS.sub("", marked.text.replace("{,}", ","))).strip().rstrip(".")
    text = _FRACTION.sub(lambda part: "/".join(filter(None, part.groups())), text)
    number = _NUMBER.fullmatch(text)
    return _canonical(number.group()) if number else None


def gold_number(text: str) -> str | None:
    """Return the number after the last ``####`` of a reference solution.

    None if there is anything but a unit besides its digits (1e5, 10:30, 3 or 4, 1,2345).
    """
    marked = _after(text, _GOLD_MARK)
    if marked is None:
        return None
    content = _UNITS.sub("", marked.text) if marked.latex else marked.text.replace("**", "")
    gold = _GOLD.fullmatch(_without_dollars(content).rpartition("=")[2].strip().rstrip("."))
    return _canonical(gold[1]) if gold else None


def same_number(first: str, second: str) -> bool:
    """Return whether two numbers in the form of ``extract_answer`` are exactly equal."""
    if first == second or max(len(first), len(second)) > MAX_DIGITS:
        return first == second
    return Fraction(first) == Fraction(second)


def _marked(text: str) -> list[Marked]:
    """Return the answers of all kinds of marks, by priority."""
    box = boxed(text)
    candidates = [
        _after(text, _GOLD_MARK),
        Marked(box, latex=True) if box else None,
        *(_after(text, mark) for mark in _MARKS),
    ]
    return [marked for marked in candidates if marked is not None]


def _after(text: str, mark: re.Pattern[str]) -> Marked | None:
    """Return the formula or the sentence after the last ``mark``."""
    ends = [match.end() for match in mark.finditer(text)]
    if not ends:
        return None
    following = text[ends[-1] :].lstrip().lstrip(":*_").lstrip()
    formula = _FORMULA.match(following)
    if formula:
        return Marked(next(filter(None, formula.groups())).strip(), latex=True)
    prose = _SENTENCE_END.split(_without_dollars(following.partition("\n")[0]), maxsplit=1)[
        0
    ].strip()
    return Marked(prose, latex=False) if prose else None


def _without_dollars(text: str) -> str:
    """Remove dollar signs, which may separate sign and digits; convert typographic minus signs."""
    return text.replace("$", "").replace("\u2212", "-")


def _canonical(number: str) -> str:
    """Normalize decimals, so that equal ones have equal texts; fractions are not reduced."""
    number = number.replace(",", "")
    if "e" in number.lower():
        over, slash, under = number.partition("/")  # 1/2e3 is 1/2000
        number = str(Fraction(over) / Fraction(under)) if slash else f"{Decimal(number):f}"
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    digits = digits.lstrip("0")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    if not digits or digits.startswith((".", "/")):
        digits = f"0{digits}"
    return digits if digits == "0" else sign + digits
