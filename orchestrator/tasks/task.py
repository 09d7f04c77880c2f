"""The base class of tasks, and their registry.

A task says where prompts, demonstrations and preference pairs come from, how they are split, and
how a response is graded. Its pydantic fields are the section ``data`` of the config.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar, TypeVar

from orchestrator.fields.section import Section
from orchestrator.fields.types import Count
from orchestrator.records import Demonstration, PreferencePair, Prompt, Reject
from orchestrator.registry import PluginError, Registry

Grades = dict[str, float]
Progress = Callable[[int, int], None]  # rows done, rows in all
PAIR_SPLITS = ("orm", "reference", "prm")  # whose preference pairs train a model


@dataclass(frozen=True)
class TaskData:
    """The data of a task, split by prompt.

    Attributes:
        demonstrations: responses that the policy imitates.
        test: prompts that every search method answers.
        pairs: preference pairs by split, those of PAIR_SPLITS and "test"; empty if the task's pairs
            are sampled from the policy.
        prompts: by split of PAIR_SPLITS, the prompts to sample pairs for; empty otherwise.
        rejects: rows that cannot be used, with the reason.
    """

    demonstrations: Sequence[Demonstration]
    test: Sequence[Prompt]
    pairs: Mapping[str, Sequence[PreferencePair]] = field(default_factory=dict)
    prompts: Mapping[str, Sequence[Prompt]] = field(default_factory=dict)
    rejects: Sequence[Reject] = ()


class Task(Section):
    """A task; a subclass has the field ``task`` with its name and defines ``read``.

    Attributes:
        test_prompts: prompts of the test split, at most.
        file_fields: fields that name files of rows.
        generated: fields that count rows which ``read`` makes in memory.
        samples_pairs: whether preference pairs are two samples of the policy each, labelled by
            ``prefer``; else ``read`` returns them.
        answers: the extraction of the final answer (``data/answers.py``); None: responses have no
            final answer, and no vote is possible.
        judged_by: the grade that decides which of two responses is better; None: no grade does.
        grades_prefixes: whether ``grade`` is defined for every prefix of a response.
        counted: grades that count what is in a response.
        faults: those of ``counted`` that count faults.
    """

    test_prompts: Count = 100
    """Prompts of the test split, at most."""

    file_fields: ClassVar[tuple[str, ...]] = ()
    generated: ClassVar[tuple[str, ...]] = ()
    samples_pairs: ClassVar[bool] = False
    answers: ClassVar[str | None] = None
    judged_by: ClassVar[str | None] = None
    grades_prefixes: ClassVar[bool] = False
    counted: ClassVar[tuple[str, ...]] = ()
    faults: ClassVar[tuple[str, ...]] = ()

    def read(self, seed: int, progress: Progress) -> TaskData:
        """Return the data, split by prompt.

        Args:
            seed: seed of all random choices.
            progress: called with the number of finished rows and of all rows, if generating them
                takes long.

        Raises:
            BadFile: a file cannot be read, or no row of it can be used.
            ValueError: a split is left without rows.
        """
        raise NotImplementedError

    def grade(self, prompt: Prompt, response: str, finished: bool) -> Grades:
        """Return the grades of a response by name, by the task's own rules; none by default.

        Args:
            prompt: the prompt; its ``facts`` hold what the rules compare with.
            response: its text, or the text of a prefix if ``grades_prefixes``.
            finished: whether the policy ended it.
        """
        return {}

    def prefer(
        self, prompt: Prompt, responses: tuple[str, str], finished: tuple[bool, bool], seed: int
    ) -> PreferencePair | None:
        """Return the preference pair of two sampled responses; None if they make no pair.

        Only called if ``samples_pairs``.
        """
        raise NotImplementedError

    def vocabulary(self) -> tuple[str, ...] | None:
        """Return all words of the task's texts; None: texts are open, tokens are byte pairs."""
        return None

    @property
    def longest_prompt(self) -> int | None:
        """Tokens of the longest prompt with its template; None: not known before reading."""
        return None

    @property
    def row_counts(self) -> Mapping[str, int] | None:
        """Rows of each split, "policy" and those of PAIR_SPLITS; None: not known before reading."""
        return None

    def contradictions(self) -> Iterator[str]:
        """Yield an error for each contradiction between fields, as a line that names a field."""
        return iter(())

    @classmethod
    def task_name(cls) -> str:
        """Return the name in the config: the default of the field ``task``."""
        fields = cls.model_fields
        return str(fields["task"].default) if "task" in fields else ""


TaskT = TypeVar("TaskT", bound=type[Task])
TASKS: Registry[type[Task]] = Registry("task", "orchestrator.tasks", "prm_orchestrator.tasks")


def register(task: TaskT) -> TaskT:
    """Register a task under the default of its field ``task``.

    Raises:
        PluginError: another task has the name, it is no valid name, or there is no such field.
    """
    if not task.task_name():
        raise PluginError(f"task {task.__name__}: has no field task: Literal[NAME] = NAME")
    TASKS.add(task.task_name(), task)
    return task


def require_usable_rows(
    path: str, rows: list[Any], rejects: list[Reject]
) -> tuple[list[Any], list[Reject]]:
    """Return the rows that were read from a file.

    Raises:
        BadFile: no row of it can be used.
    """
    if not rows:
        from orchestrator.data.files import none_usable

        first = next(iter(rejects), None)
        raise none_usable(
            path, len(rejects), first.reason if first else "", getattr(first, "row", 0)
        )
    return rows, rejects


def check_shares(task: Task, *names: str) -> None:
    """Check that the shares of the prompts leave prompts for the PRM.

    Raises:
        ValueError: they do not.
    """
    total = sum(getattr(task, name) for name in names)
    if total >= 1:
        raise ValueError(
            f"{' + '.join(names)} = {total:g}: the PRM gets the remaining prompts; valid: a sum"
            " less than 1"
        )


def check_data(task: Task, data: TaskData) -> None:
    """Check what ``Task.read`` returned, so that a stage that reads it does not fail later.

    Raises:
        ValueError: a split that the task must return is missing or empty, or a prompt of one split
            is also in another.
    """
    name = task.task_name()
    splits: dict[str, Sequence[PreferencePair] | Sequence[Prompt]] = dict(
        data.prompts if task.samples_pairs else data.pairs
    )
    wanted = PAIR_SPLITS if task.samples_pairs else (*PAIR_SPLITS, "test")
    missing = [split for split in wanted if split not in splits]
    if missing:
        field_name = "prompts" if task.samples_pairs else "pairs"
        raise ValueError(f"task {name}: its data have no {field_name}[{missing[0]!r}]")
    if not data.test:
        raise ValueError(f"task {name}: its data have no test prompts")
    first: dict[str, str] = {}
    splits.pop("test", None)
    for split, rows in {**splits, "test": data.test}.items():
        for row in rows:
            prompt_id = row.prompt_id if isinstance(row, Prompt) else row.prompt.prompt_id
            if first.setdefault(prompt_id, split) != split:
                raise ValueError(
                    f"task {name}: prompt {prompt_id} is in the splits {first[prompt_id]} and"
                    f" {split}; valid: each prompt in one split"
                )


def grades_of(task: Task, prompt: Prompt, response: str, finished: bool) -> Grades:
    """Return the task's grades of a response, checked.

    Raises:
        ValueError: a grade that the task's traits name is missing, or one is not a finite number.
    """
    grades = task.grade(prompt, response, finished)
    named = (*task.counted, *([task.judged_by] if task.judged_by else []))
    if missing := [name for name in named if name not in grades]:
        raise ValueError(
            f"task {task.task_name()}: no grade {missing[0]!r} of a response to prompt"
            f" {prompt.prompt_id}"
        )
    for name, value in grades.items():
        if not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(
                f"task {task.task_name()}: the grade {name} = {value!r} of a response to prompt"
                f" {prompt.prompt_id} is not a finite number"
            )
    return grades
