"""A training job, its result, and the interface of its backend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.choices import BRANCH_MEMORY_MIB
from orchestrator.objectives.examples import Example

Start = Literal["policy", "policy_to_reward", "reward"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingJob:
    """One training.

    Attributes:
        key: identifies the training when it is resumed.
        objective: name of a registered objective.
        start: "policy" continues a language model, "policy_to_reward" adds a new reward head to
            one, "reward" continues a reward model.
        checkpoint: folder or hub name of the model that the training starts from.
        examples: Parquet file of training rows.
        output: folder for the model.
        batch_size: rows, or partial pairs, of an optimizer step.
        steps: exact number of steps, or None for ``epochs`` passes.
        closed: whether the closing tokens follow each prefix that is scored.
        beta: factor of the log ratio of an implicit PRM.
        deepspeed: DeepSpeed's config.
        precision: precision of autocast.
        micro_batch_tokens: padded tokens of one forward at most; None is a worker's full share.
        gradient_checkpointing: whether the backward pass computes activations again.
        branch_memory_mib: memory of the branches of one forward at most (MiB), without what the
            backward pass keeps.
        checkpoint_steps: steps between two checkpoints; None writes none.
        evaluation: Parquet file of held-out rows; None evaluates nothing.
        evaluation_steps: steps between two evaluations; None evaluates after the last step only.
        score_at: token of the template's closing at which a reward model scores; None is the last.
        score_label: index of the label that is trained, of a reward model with several labels; the
            trained model has that label only.
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
    deepspeed: dict[str, object]
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
    """The result of a training.

    Attributes:
        steps: number of optimizer steps.
        rows: number of different rows that were trained on.
        partial_pairs: number of different partial pairs; 0 if the objective has none.
        seconds: wall time.
        loss: mean loss of the terms of each step.
        accuracy: share of right terms of each step.
        evaluation: (step, value) of each held-out measure, by its name.
        resumed_at: step after which the training was resumed; 0 if it was not.
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
        """Return the result as a dictionary of plain values."""
        return asdict(self)


class TrainingBackend(Protocol):
    """The backend of a training on one worker: reads rows, stores checkpoints, receives progress.

    Attributes:
        rank: number of the worker.
        workers: number of workers.
    """

    rank: int
    workers: int

    def rows(self, file: Path, pieces: Sequence[Sequence[int]]) -> Iterator[Example]:
        """Iterate over the rows of all pieces, in order.

        Args:
            file: Parquet file of training rows.
            pieces: row numbers; the rows of a piece are read together.
        """

    def progress(self, done: int, steps: int, loss: float) -> None:
        """Receive the number of finished steps, of all steps, and this worker's last loss."""

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receive the held-out metrics after ``step``.

        A resumed training reports those before its resumption again.
        """

    def save_checkpoint(self, write: Callable[[Path], None], step: int) -> None:
        """Store a checkpoint after ``step``: each worker calls ``write`` with a new folder."""

    def last_checkpoint(self) -> AbstractContextManager[Path | None]:
        """Provide the folder of the last checkpoint with the files of all workers, or None."""
