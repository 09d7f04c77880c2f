r"""Final answers compared as mathematics (math-verify): ``\boxed{\frac{1}{2}}`` is 0.5.

Plain numbers are compared exactly, here; everything else in a process of its own
(``math_worker.py``), with limits of time and memory. It may be asked from any thread.
"""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.data.final_answers import (
    MOST_DIGITS,
    Marked,
    final_answer,
    last_number,
    number_of,
    same_number,
)

if TYPE_CHECKING:  # it runs in the other process, and counts as a source of what is computed here
    from orchestrator.data import math_worker  # noqa: F401

Verdict = Literal["right", "wrong", "missing", "unchecked"]

TAIL = 1_000  # characters at a text's end, in which an answer without a mark is looked for
REMEMBERED = 4_096  # answers
PATIENCE = 4  # answers of a vote that may come to a limit: a search actor stands still meanwhile
PROGRAM = Path(__file__).with_name("math_worker.py")
INSTALL = (
    "the process of math-verify did not start; `python -c 'import math_verify'` in this environment"
    " says why; install it with: pip install -c constraints.txt math-verify"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z \-]+[A-Za-z]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf)\{[^{}]*\}|\\[A-Za-z]+")
_JOINED = re.compile(r"\s*\b(?:and|or)\b\s*")
_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}")
_log = logging.getLogger(__name__)


def verdict(text: str, gold: str) -> Verdict:
    """Whether the final answer of a response is the true one.

    Two plain numbers are compared exactly. Else math-verify decides, for which decimals are equal
    to six places.

    Args:
        text: of the response.
        gold: the true answer alone: a number, or LaTeX.

    Returns:
        "missing" for a response without an answer; "unchecked" where the answer could not be
        compared: math-verify raised an error, or came to a limit of time or memory.
    """
    answer, right = final_answer(text), Marked(gold, latex=True)
    number, gold_number = _number(answer, text), number_of(right)
    if answer is None and number is None and "\\" not in text:
        return "missing"
    if number is not None and gold_number is not None:
        equal = same_number(number, gold_number)
        if equal or "%" not in gold + (answer.text if answer and answer.latex else ""):
            return "right" if equal else "wrong"
    if answer is not None and _squeezed(answer.text) == _squeezed(gold):
        return "right"
    return _compared(_readable(answer, text), _readable(right, gold))


def canonical_answers(texts: Iterable[str]) -> list[str | None]:
    r"""Of each response a text that equal final answers share; None where it has no answer.

    Equal are numbers of the same value (0.5, ``\frac{1}{2}``; of irrational ones the first 25
    digits), expressions that have the same value at three fixed points of their variables, sets
    whose members are equal, tuples, matrices and intervals of equal parts, ``x = 5`` and 5,
    equations up to a factor, an inequality and its set. Percent signs, degrees, currencies and
    units count for nothing. An answer that is no mathematics, or that is not read within the
    limits, is equal to those of the same text; so are all behind ``PATIENCE`` such ones, that a
    vote among hopeless answers ends.
    """
    votes: list[str | None] = []
    hopeless: set[str] = set()
    for text in texts:
        answer = final_answer(text)
        number = _number(answer, text)
        if number is not None:
            votes.append(_fraction(number))
        elif answer is None and "\\" not in text:
            votes.append(None)
        else:
            read = _readable(answer, text, percent=False)
            canonical = None if len(hopeless) == PATIENCE else _canonical(read)
            if canonical is None and len(hopeless) < PATIENCE:
                hopeless.add(read)
            unread = None if answer is None and canonical == "" else f"text {_squeezed(read)}"
            votes.append(canonical or unread)
    return votes


def _number(answer: Marked | None, text: str) -> str | None:
    """The number that an answer is; where none is marked the last one of a text without LaTeX."""
    if answer is not None:
        return number_of(answer)
    return None if "\\" in text else last_number(text)


@lru_cache(REMEMBERED)
def _compared(answer: str, gold: str) -> Verdict:
    reply = ask({"answer": answer, "gold": gold})
    if "right" in reply:
        return "right" if reply["right"] else "wrong"
    if "missing" in reply:
        return "missing"
    _log.warning("an answer could not be compared: %s", reply["error"])
    return "unchecked"


@lru_cache(REMEMBERED)
def _canonical(answer: str) -> str | None:
    """Empty for what is no answer; None where it is not known: an error, or a limit."""
    reply = ask({"answer": answer})
    if "error" in reply:
        _log.warning("an answer votes by its text, which could not be read: %s", reply["error"])
        return None
    return str(reply.get("canonical", ""))


def _fraction(number: str) -> str:
    """As ``math_worker.py`` writes fractions."""
    if len(number) > MOST_DIGITS:
        return f"text {number}"
    value = Fraction(number)
    return f"{value.numerator:x}/{value.denominator:x}"


def _readable(answer: Marked | None, text: str, *, percent: bool = True) -> str:
    """An answer as math-verify reads it: LaTeX and words in a box, other prose as it stands."""
    if answer is None:
        return text[-TAIL:]
    written = answer.text if percent else answer.text.rstrip("%").removesuffix("\\")
    if not answer.latex:
        written = written.strip("*_ .,;:!?\"'")
    if _WORDS.fullmatch(word := _WRAPPED.sub(r"\1", written)):
        return _box(f"\\text{{{word}}}")
    if not answer.latex:
        if _WORD.search(_JOINED.sub(" ", _COMMAND.sub(" ", written))):
            return written
        written = _JOINED.sub(", ", written)
    return _box(written)


def _box(latex: str) -> str:
    return f"\\boxed{{{latex}}}"


def _squeezed(latex: str) -> str:
    """Without white space, wrappers of text, and a full stop at the end."""
    return "".join(_WRAPPED.sub(r"\1", latex).split()).rstrip(".")


class _Worker:
    """The process of ``math_worker.py``, started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def ask(self, task: dict[str, str]) -> dict[str, Any]:
        """What the process answers, or {"error": text} where it ended over the task."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _started()
            answer = _exchange(self._process, task)
            if answer is not None:
                return answer
            self._process.kill()
            code = self._process.wait()
            self._process = None
        late = code == -signal.SIGPROF
        return {"error": "the time limit" if late else f"its process ended (exit code {code})"}


def _exchange(process: subprocess.Popen[str], task: dict[str, str]) -> dict[str, Any] | None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):  # where it has ended there is no line to read
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    return dict(json.loads(line)) if line.endswith("\n") else None


def _started() -> subprocess.Popen[str]:
    """A process that is ready.

    Raises:
        RuntimeError: it ended before.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(INSTALL)
    return process


_worker = _Worker()


def ask(task: dict[str, str]) -> dict[str, Any]:
    """What the process of math-verify answers to a task; an {"error": text} is no verdict."""
    return _worker.ask(task)


def _forget_worker() -> None:
    """A forked process shares neither pipes nor locks with its parent."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_forget_worker)
