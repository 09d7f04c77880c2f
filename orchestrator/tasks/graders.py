"""What a task itself says of a response: the help desk's rubric, a true answer; HH says nothing.

A grade is a set of named numbers, each averaged into a metric of that name; ``rubric`` is also the
exact judge h of prefixes (AR_SC-HP, AR_RM-HP) and of win-tie. The counts among them tell why one
cell's responses are better or worse than another's.
"""

from collections.abc import Callable

from orchestrator.data.math_answers import verdict
from orchestrator.records import Prompt
from orchestrator.tasks.helpdesk.rubric import grade

Grades = dict[str, float]
Grader = Callable[[Prompt, str, bool], Grades]


def helpdesk(prompt: Prompt, response: str, finished: bool) -> Grades:
    """``rubric`` in points, ``resolved`` 0 or 1, the others counts."""
    verdict = grade(prompt.facts, response, finished)
    return {
        "rubric": verdict.value,
        "resolved": float(verdict.resolved),
        "fitting_steps": float(verdict.fitting),
        "wrong_verbs": float(verdict.wrong_verbs),
        "wrong_parts": float(verdict.wrong_parts),
        "malformed_steps": float(verdict.malformed),
        "repeated_steps": float(verdict.repeats),
        "rude_remarks": float(verdict.rude),
    }


def answer(prompt: Prompt, response: str, finished: bool) -> Grades:
    """``accuracy`` 0 or 1 by the final answer, and which kind of not right a response is.

    A response is right, wrong, without an answer, or unchecked: its answer could not be compared.
    """
    judged = verdict(response, prompt.facts["answer"])
    return {
        "accuracy": float(judged == "right"),
        "wrong_answers": float(judged == "wrong"),
        "missing_answers": float(judged == "missing"),
        "unchecked_answers": float(judged == "unchecked"),
    }


def no_grades(prompt: Prompt, response: str, finished: bool) -> Grades:
    """A task whose answers cannot be checked."""
    return {}


GRADERS: dict[str, Grader] = {
    "helpdesk": helpdesk,
    "gsm8k": answer,
    "math": answer,
    "hh_rlhf": no_grades,
}
_ANSWERS = ("wrong_answers", "missing_answers", "unchecked_answers")
# The grades that count what is in a response: how many of what went right, then what went wrong.
COUNTED = {
    "helpdesk": (
        "fitting_steps",
        "wrong_verbs",
        "wrong_parts",
        "malformed_steps",
        "repeated_steps",
        "rude_remarks",
    ),
    "gsm8k": _ANSWERS,
    "math": _ANSWERS,
}
# The grade by which responses are compared with the base response, where there is one.
JUDGED_BY = {"helpdesk": "rubric", "gsm8k": "accuracy", "math": "accuracy"}
