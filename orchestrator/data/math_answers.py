r"""Final answers compared as mathematics (math-verify): ``\boxed{\frac{1}{2}}`` is 0.5.

Plain numbers are compared exactly in this process; other answers in a separate process
(``math_worker.py``) with limits of time and memory. Thread-safe.
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
from typing import TYPE_CHECKING, Literal

from orchestrator.data.final_answers import (
    MAX_DIGITS,
    Marked,
    final_answer,
    last_number,
    number_of,
    same_number,
)

if TYPE_CHECKING:  # runs in the other process; imported so that stage keys depend on it
    from orchestrator.data import math_worker  # noqa: F401

Verdict = Literal["right", "wrong", "missing", "unchecked"]

TAIL = 1_000  # characters at a text's end that are searched for an unmarked answer
CACHE_SIZE = 4_096  # answers
PATIENCE = 4  # answers of a vote that may reach a limit: the search actor waits meanwhile
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
    """Compare the final answer of a response with the reference answer.

    Two plain numbers are compared exactly. Otherwise math-verify decides, for which
    decimals are equal to six places.

    Args:
        text: text of the response.
        gold: the reference answer alone: a number, or LaTeX.

    Returns:
        "missing" for a response without an answer; "unchecked" if the answer could not be compared:
        math-verify raised an error, or reached a limit of time or memory.
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
    r"""Return for each response a text that equal final answers share; None for no answer.

    Equal are numbers of the same value (0.5, ``\frac{1}{2}``; of irrational ones the first 25
    digits), expressions that have the same value at three fixed points of their variables, sets
    of equal members, tuples, matrices and intervals of equal parts, ``x = 5`` and 5, equations up
    to a factor, an inequality and its set. Percent signs, degrees, currencies and units are
    ignored. An answer that is not mathematics, or is not parsed within the limits, equals those of
    the same text. After ``PATIENCE`` such answers all others are compared by text, which bounds the
    time of a vote.
    """
    votes: list[str | None] = []
    unparsed: set[str] = set()
    for text in texts:
        answer = final_answer(text)
        number = _number(answer, text)
        if number is not None:
            votes.append(_fraction(number))
        elif answer is None and "\\" not in text:
            votes.append(None)
        else:
            latex = _readable(answer, text, percent=False)
            canonical = None if len(unparsed) == PATIENCE else _canonical(latex)
            if canonical is None and len(unparsed) < PATIENCE:
                unparsed.add(latex)
            by_text = None if answer is None and canonical == "" else f"text {_squeezed(latex)}"
            votes.append(canonical or by_text)
    return votes


def _number(answer: Marked | None, text: str) -> str | None:
    """Return the number of an answer; without a mark the last number of a text without LaTeX."""
    if answer is not None:
        return number_of(answer)
    return None if "\\" in text else last_number(text)


@lru_cache(CACHE_SIZE)
def _compared(answer: str, gold: str) -> Verdict:
    reply = call_worker({"answer": answer, "gold": gold})
    if "right" in reply:
        return "right" if reply["right"] else "wrong"
    if "missing" in reply:
        return "missing"
    _log.warning("an answer could not be compared: %s", reply["error"])
    return "unchecked"


@lru_cache(CACHE_SIZE)
def _canonical(answer: str) -> str | None:
    """Return the canonical text of an answer; empty for no answer, None after an error or limit."""
    reply = call_worker({"answer": answer})
    if "error" in reply:
        _log.warning(
            "an answer could not be parsed and is compared by its text: %s", reply["error"]
        )
        return None
    return str(reply.get("canonical", ""))


def _fraction(number: str) -> str:
    """Return a number in the fraction format of ``math_worker.py``."""
    if len(number) > MAX_DIGITS:
        return f"text {number}"
    value = Fraction(number)
    return f"{value.numerator:x}/{value.denominator:x}"


def _readable(answer: Marked | None, text: str, *, percent: bool = True) -> str:
    """Return an answer in the form for math-verify: LaTeX and words in a box, other prose as is."""
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
    """Remove white space, wrappers of text, and a final full stop."""
    return "".join(_WRAPPED.sub(r"\1", latex).split()).rstrip(".")


class _Worker:
    """The process of ``math_worker.py``, started on demand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def call(self, task: dict[str, str]) -> dict[str, object]:
        """Send a task; return the answer, or {"error": text} if the task ended the process."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
            answer = _exchange(self._process, task)
            if answer is not None:
                return answer
            self._process.kill()
            code = self._process.wait()
            self._process = None
        timed_out = code == -signal.SIGPROF
        return {"error": "the time limit" if timed_out else f"its process ended (exit code {code})"}


def _exchange(process: subprocess.Popen[str], task: dict[str, str]) -> dict[str, object] | None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):  # if it has ended, there is no line to read
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    return dict(json.loads(line)) if line.endswith("\n") else None


def _start() -> subprocess.Popen[str]:
    """Start the process and wait until it is ready.

    Raises:
        RuntimeError: it did not start.
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


def call_worker(task: dict[str, str]) -> dict[str, object]:
    """Send a task to the process of math-verify; return its answer, or {"error": text}."""
    return _worker.call(task)


def _reset_worker() -> None:
    """Reset the worker in a forked process, which must not use its parent's pipes and locks."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_reset_worker)
