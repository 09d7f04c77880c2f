"""A training as plain values: what is trained, on which rows, how; and what came of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.training.examples import Example

Start = Literal["policy", "policy_to_reward", "reward"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Attributes:
        key: what the training is known by when it is taken up again.
        objective: name of a registered objective.
        start: "policy" trains on from it; "policy_to_reward" puts a new head on it;
            "reward" trains on from a reward model.
        checkpoint: what it starts from, a folder or hub name.
        examples: Parquet file of training rows.
        output: folder for the model.
        batch_size: rows, or partial pairs, of an optimizer step.
        steps: exact number of steps, or None for ``epochs`` passes.
        closed: whether prefixes are scored with the closing suffix.
        beta: factor of the log ratio of an implicit PRM.
        deepspeed: DeepSpeed's config.
        precision: of autocast.
        micro_batch_tokens: most padded tokens of one forward; None is a worker's whole share.
        gradient_checkpointing: whether activations are computed again in the backward pass.
        branch_memory_mib: what the branches of one forward may take beside their trunks, before the
            backward pass keeps what it needs of them.
        checkpoint_steps: steps between two checkpoints of the training; None writes none.
        evaluation: Parquet file of held-out rows; None for none.
        evaluation_steps: steps between two evaluations, one more at the end.
        score_at: token of the template's closing at which a reward model scores; None is the last.
        score_label: index of the label that a reward model of several is trained on from; its head
            has that one alone then.
    """

    key: str
    objective: str
    start: Start
    checkpoint: str
    examples: str
    output: str
    learning_rate: float
    batch_size: int
    epochs: int
    steps: int | None
    warmup_steps: int
    closed: bool
    seed: int
    deepspeed: dict[str, Any]
    precision: Precision
    micro_batch_tokens: int | None = None
    gradient_checkpointing: bool = False
    checkpoint_steps: int | None = None
    evaluation: str | None = None
    evaluation_steps: int | None = None
    beta: float = 1.0
    branch_memory_mib: int = BRANCH_MEMORY_MIB
    score_label: int | None = None
    score_at: str | int | None = None


@dataclass
class TrainingResult:
    """What a training did.

    ``loss`` and ``accuracy`` are means per row, token or partial pair at each step; ``evaluation``
    holds (step, value) of each measure on the held-out rows; ``resumed_at`` is the step after which
    the training was taken up again, 0 where it ran in one go.
    """

    steps: int = 0
    rows: int = 0
    partial_pairs: int = 0
    seconds: float = 0.0
    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    evaluation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    resumed_at: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Host(Protocol):
    """Who runs a training on one worker: gives it rows, keeps its checkpoints, hears of it."""

    rank: int
    workers: int

    def rows(self, file: Path, pieces: Sequence[Sequence[int]]) -> Iterator[Example]:
        """The rows of all pieces, in order: row numbers of ``file``, read piece by piece."""

    def progress(self, done: int, steps: int, loss: float) -> None:
        """Steps done, steps in all, this worker's last loss."""

    def evaluated(self, step: int, measures: Mapping[str, float]) -> None:
        """The held-out measures after ``step``; after a resumption those before it once more."""

    def keep(self, write: Callable[[Path], None], step: int) -> None:
        """Keeps a checkpoint: all workers ``write`` their files into a folder of their own."""

    def kept(self) -> AbstractContextManager[Path | None]:
        """The folder of the last checkpoint, the files of all workers in it, if there is one."""
