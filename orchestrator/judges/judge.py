"""The base class of judges, and their registry.

A judge gives a response a value; of two responses to a prompt the one with the higher value is
better. The sweep reports the win-tie rate against the base policy's response by each judge, and the
agreement of prefix scores with a judge of prefixes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from orchestrator.fields.section import Section
from orchestrator.records import Prompt
from orchestrator.registry import PluginError, Registry
from orchestrator.tasks.task import Task


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on one text.

    Attributes:
        value: higher is better; equal values are a tie.
        faults: faults in the text; None if the judge does not count them.
    """

    value: float
    faults: int | None = None


@dataclass(frozen=True)
class Judged:
    """One text to judge: a response to a prompt, or a prefix of one."""

    prompt: Prompt
    response: str
    finished: bool


class Judge(Section):
    """A judge; a subclass has the field ``name`` and defines ``verdicts``."""

    def refusal(self, task: Task) -> str | None:
        """Return the reason why it cannot judge the responses of a task; None if it can."""
        return None

    def judges_prefixes(self, task: Task) -> bool:
        """Return whether it gives verdicts on prefixes, which are never ``finished``."""
        return False

    def verdicts(self, task: Task, texts: Sequence[Judged]) -> list[Verdict]:
        """Return the verdict on each text, in their order; values are finite."""
        raise NotImplementedError

    @classmethod
    def judge_name(cls) -> str:
        """Return the name in the config: the default of the field ``name``."""
        fields = cls.model_fields
        return str(fields["name"].default) if "name" in fields else ""


LONGEST_NAME = 32  # characters; the name of its metric is longer
JudgeT = TypeVar("JudgeT", bound=type[Judge])
JUDGES: Registry[type[Judge]] = Registry("judge", "orchestrator.judges", "prm_orchestrator.judges")


def register(judge: JudgeT) -> JudgeT:
    """Register a judge under the default of its field ``name``.

    Raises:
        PluginError: another judge has the name, the name is not valid, or there is no such field.
    """
    if not judge.judge_name():
        raise PluginError(f"judge {judge.__name__}: has no field name: Literal[NAME] = NAME")
    if len(judge.judge_name()) > LONGEST_NAME:
        raise PluginError(
            f"judge {judge.judge_name()!r}: the name is too long; valid: at most {LONGEST_NAME}"
            " characters"
        )
    JUDGES.add(judge.judge_name(), judge)
    return judge


def verdicts_of(judge: Judge, task: Task, texts: Sequence[Judged]) -> list[Verdict]:
    """Return a judge's verdicts on texts, checked.

    Raises:
        ValueError: there is not one verdict for each text, or a value is not a finite number.
    """
    name, verdicts = judge.judge_name(), judge.verdicts(task, texts)
    if len(verdicts) != len(texts):
        raise ValueError(f"judge {name}: {len(verdicts)} verdicts on {len(texts)} texts")
    for text, verdict in zip(texts, verdicts, strict=True):
        if not isinstance(verdict.value, int | float) or not isfinite(verdict.value):
            raise ValueError(
                f"judge {name}: the value {verdict.value!r} of a response to prompt"
                f" {text.prompt.prompt_id} is not a finite number"
            )
    return verdicts
