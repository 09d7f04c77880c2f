"""Cut held-out preference pairs at a grid of prefix lengths t, and grade the prefixes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.conversations.chat import Chat
from orchestrator.evaluation.prefix_accuracy import both_reach
from orchestrator.evaluation.resampling import Bools, Floats
from orchestrator.judges.judge import Judge, Judged, Verdict, verdicts_of
from orchestrator.judges.task_grade import TaskGrade
from orchestrator.records import PreferencePair
from orchestrator.search.engines import Ids
from orchestrator.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Grid:
    """N held-out preference pairs at G prefix lengths.

    t counts tokens of one tokenizer: a scorer with another tokenizer has another grid.

    Attributes:
        ids: token ids of the chosen and the rejected response of each pair.
        lengths: the G lengths t in tokens.
        groups: the N prompt ids.
        distinct: (N, G), whether the two prefixes differ at t.
        reached: (N, G), whether both responses have at least t tokens.
        judge_grades: (N, G) grades of the chosen and of the rejected prefixes; None without a
            judge.
        faults: (N, G), whether the chosen and the rejected prefixes have a fault; None if no
            judge counts faults.
    """

    ids: list[tuple[Ids, Ids]]
    lengths: list[int]
    groups: list[str]
    distinct: Bools
    reached: Bools
    judge_grades: tuple[Floats, Floats] | None = None
    faults: tuple[Bools, Bools] | None = None


@dataclass(frozen=True)
class PrefixJudge:
    """A judge of prefixes with the task that it judges."""

    judge: Judge
    task: Task

    @classmethod
    def of(cls, task: Task, judges: Iterable[Judge]) -> "PrefixJudge | None":
        """Return the judge of prefixes: the task's grade, else one of ``judges``, or None."""
        every = [TaskGrade(), *judges]
        judge = next((judge for judge in every if judge.judges_prefixes(task)), None)
        return None if judge is None else cls(judge, task)

    def grades(
        self,
        pairs: Sequence[PreferencePair],
        chat: Chat,
        lengths: Sequence[int],
        ids: Sequence[tuple[Ids, Ids]],
    ) -> tuple[Floats, Bools | None]:
        """Return grades and faults (2, N, G): chosen before rejected; None if not counted."""
        prefixes = [
            Judged(pair.prompt, chat.text(sides[side][:t]), finished=False)
            for side in (0, 1)
            for pair, sides in zip(pairs, ids, strict=True)
            for t in lengths
        ]
        verdicts = verdicts_of(self.judge, self.task, prefixes)
        return _arrays(verdicts, (2, len(pairs), len(lengths)))


def grid_of(
    pairs: Sequence[PreferencePair],
    chat: Chat,
    lengths: Sequence[int],
    judge: PrefixJudge | None = None,
    computed: Iterable[Grid] = (),
) -> Grid:
    """Return the grid of pairs in the tokens of ``chat``.

    If one of the ``computed`` grids has the same tokens, that one is returned: scorers with the
    same grid can be compared pair by pair.
    """
    ids = [chat.pair(p.prompt.messages, p.chosen, p.rejected)[1:] for p in pairs]
    same = next((grid for grid in computed if grid.ids == ids), None)
    if same is not None:
        return same
    distinct = np.array([[c[:t] != r[:t] for t in lengths] for c, r in ids])
    reached = both_reach([len(c) for c, _ in ids], [len(r) for _, r in ids], lengths)
    groups = [pair.prompt.prompt_id for pair in pairs]
    if judge is None:
        return Grid(ids, list(lengths), groups, distinct, reached)
    grades, faults = judge.grades(pairs, chat, lengths, ids)
    return Grid(
        ids, list(lengths), groups, distinct, reached, (grades[0], grades[1]),
        None if faults is None else (faults[0], faults[1]),
    )  # fmt: skip


def _arrays(
    verdicts: Sequence[Verdict], shape: tuple[int, int, int]
) -> tuple[Floats, Bools | None]:
    """Return values, and whether there are faults, as arrays; None if faults are not counted."""
    values = np.array([verdict.value for verdict in verdicts], np.float64).reshape(shape)
    if any(verdict.faults is None for verdict in verdicts):
        return values, None
    return values, np.array([bool(verdict.faults) for verdict in verdicts]).reshape(shape)
