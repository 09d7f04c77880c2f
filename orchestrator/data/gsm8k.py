"""GSM8K (appendix C.1): questions with worked answers, and the exact check of a final answer.

The accuracy of section 5.1 by extraction, not by a judge: the last marked answer, else the last
number, compared as exact fractions. Knows nothing of prompt templates, tokens or models.
"""

import re
from fractions import Fraction
from pathlib import Path

from orchestrator.data.conversations import conversation
from orchestrator.data.pairs import prompt_id
from orchestrator.data.rejects import BadRow, Seen, field, response, text
from orchestrator.data.rows import Row, parsed_rows
from orchestrator.records import Demonstration, Prompt, Reject

NO_ANSWER = "no final answer: answer has no number after its last ####"
MOST_DIGITS = 1_000  # of a number that is compared as such: a policy may write digits without end

_GOLD_MARK = re.compile(r"####")
# In this order: the data set's own mark, that of the published model solutions, plain English.
_MARKS = (
    _GOLD_MARK,
    re.compile(r"^[ \t]*A:", re.MULTILINE),
    re.compile(r"\banswer\s+is\b", re.IGNORECASE),
)
_SENTENCE_END = re.compile(r"[.!?]\s")
_NUMBER = re.compile(
    r"(?:(?<![\w.)])-)?"  # a sign, not the minus of a subtraction
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+|/0*[1-9][0-9]*)?|\.[0-9]+)"
)


def read_questions(path: str | Path) -> tuple[list[Demonstration], list[Reject]]:
    """All questions of a file (``question``, ``answer``), and the rows that are none, in order.

    The answer is the response to imitate, as it stands; the prompt's facts hold the number after
    its last ``####`` as ``answer``. A question has the prompt id that it has in a file of pairs.
    """
    seen = Seen()

    def demonstration(_: int, row: Row) -> tuple[Demonstration]:
        prompt = conversation("question", text("question", field(row, "question")))
        worked = response("answer", field(row, "answer"))
        answer = _marked(worked, _GOLD_MARK)
        if answer is None:
            raise BadRow(NO_ANSWER)
        seen.check(identity := prompt_id(prompt), worked)
        return (Demonstration(Prompt(identity, prompt, {"answer": answer}), worked),)

    return parsed_rows(path, demonstration)


def extract_answer(text: str) -> str | None:
    """The final answer of a solution as "1234.5", "-3" or "3/4"; None where there is no number.

    The number after the last ``####``, else after the last ``A:`` that begins a line, else after
    the last "answer is", else the last number at all. In what a mark marks (to the sentence's end)
    it is the first number after the last ``=``. Commas, $, % and decimals of zero are dropped.
    """
    for mark in _MARKS:
        answer = _marked(text, mark)
        if answer is not None:
            return answer
    return last_number(text)


def last_number(text: str) -> str | None:
    """The last number of a text, written as ``extract_answer`` does; None where there is none."""
    numbers = _NUMBER.findall(_plain(text))
    return _canonical(numbers[-1]) if numbers else None


def is_correct(text: str, answer: str) -> bool:
    """Whether a solution's final answer equals the true one, exactly, as fractions.

    ``answer`` is a number or a worked answer. A text without a number is wrong.

    Raises:
        ValueError: ``answer`` holds no number.
    """
    right, given = extract_answer(answer), extract_answer(text)
    if right is None:
        raise ValueError(f"the true answer {answer[:100]!r} holds no number")
    if given is None or given == right:
        return given == right
    if max(len(given), len(right)) > MOST_DIGITS:
        return False
    return Fraction(given) == Fraction(right)


def _marked(text: str, mark: re.Pattern[str]) -> str | None:
    """The number that stands after the last ``mark``, None where there is none."""
    ends = [found.end() for found in mark.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].partition("\n")[0]
    marked = _SENTENCE_END.split(_plain(line), maxsplit=1)[0]
    number = _NUMBER.search(marked.rpartition("=")[2])
    return _canonical(number.group()) if number else None


def _plain(text: str) -> str:
    """Without dollar signs, which come between sign and digits; the typographic minus as a sign."""
    return text.replace("$", "").replace("\u2212", "-")


def _canonical(number: str) -> str:
    """Equal decimals get equal texts; fractions stay as they were written."""
    number = number.replace(",", "")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    digits = digits.lstrip("0")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    if not digits or digits.startswith((".", "/")):
        digits = f"0{digits}"
    return digits if digits == "0" else sign + digits
