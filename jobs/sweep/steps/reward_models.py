"""The stages ``orm``, ``reference`` (Eq. 1) and ``variants/NAME`` (Eq. 2, Eq. 3): train a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.sweep.training import Trainer
from orchestrator.config.sections import Reading
from orchestrator.config.training import Optimization
from orchestrator.conversations.chat import Chat
from orchestrator.data.held_out import held_out_pairs
from orchestrator.data.tables import stream_pairs
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.rewards.weights import Kind
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.training.files import write_examples
from orchestrator.training.job import Start
from orchestrator.training.pair_rows import first_partial_pairs, partial_pairs, whole_pair


@dataclass(frozen=True)
class HeldOut:
    """Pairs that a model in training is evaluated on.

    Attributes:
        files: files of pairs; the first one with rows is used.
        count: largest number of pairs.
        grid: lengths at which prefixes are compared.
    """

    files: Sequence[Path]
    count: int
    grid: Sequence[int]


@dataclass(frozen=True)
class WholePairsInputs:
    """Inputs of a training on whole responses.

    Attributes:
        pairs: file of preference pairs.
        held_out: pairs for evaluations.
        chat: chat format of the model that training starts from.
        start: which model is loaded: ``policy``, ``policy_to_reward`` (new reward head) or
            ``reward``.
        checkpoint: folder or hub name of the model that training starts from.
        optimization: settings of the training.
        trainer: trains the stage's model.
        objective: name of the loss.
        beta: factor of the log ratio, if the objective has one.
        steps: exact number of steps; None: as ``optimization`` says.
        reading: preset, scored token and label of a reward model whose files do not show them.
    """

    pairs: Path
    held_out: HeldOut
    chat: Chat
    start: Start
    checkpoint: str
    optimization: Optimization
    trainer: Trainer
    objective: str = BradleyTerry.name
    beta: float = 1.0
    steps: int | None = None
    reading: Reading = Reading()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class PartialPairsInputs:
    """Inputs of a training on partial pairs, from the ORM.

    Attributes:
        partial_pairs: file of partial pairs with reference scores.
        truncation: name of the truncation whose rows are used.
        weight: kind of weight.
        weight_max: the largest weight; None: uncapped.
        normalize: whether weights are scaled to mean 1.
        seed: seed of the run.
        max_partial_pairs: largest number of partial pairs; None: all.
        held_out: pairs for evaluations.
        chat: chat format of the ORM.
        checkpoint: checkpoint of the ORM.
        optimization: settings of the training.
        objective: name of the loss.
        beta: factor of the log ratio, if the objective has one.
        reading: preset, scored token and label of an ORM whose files do not show them.
        trainer: trains the stage's model.
    """

    partial_pairs: Path
    truncation: str
    weight: Kind
    weight_max: float | None
    normalize: bool
    seed: int
    max_partial_pairs: int | None
    held_out: HeldOut
    chat: Chat
    checkpoint: str
    optimization: Optimization
    objective: str
    beta: float
    reading: Reading
    trainer: Trainer


@dataclass(frozen=True)
class ImplicitInputs:
    """Inputs of the training of an implicit PRM, from the policy.

    Attributes:
        examples: training rows with the policy's log-probabilities.
        held_out: rows for evaluations; the file may be missing.
        objective: name of the loss.
        checkpoint: checkpoint of the policy.
        beta: factor of the log ratio.
        optimization: settings of the training.
        trainer: trains the stage's model.
    """

    examples: Path
    held_out: Path
    objective: str
    checkpoint: str
    beta: float
    optimization: Optimization
    trainer: Trainer


def run_whole_pairs(inputs: WholePairsInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Train the ORM, the reference or a control on whole responses."""
    pairs = stream_pairs(inputs.pairs)
    write_examples(folder / "examples.parquet", (whole_pair(pair, inputs.chat) for pair in pairs))
    _write_held_out(inputs.held_out, inputs.chat, folder)
    return inputs.trainer.train(
        inputs.objective, inputs.start, inputs.checkpoint, inputs.optimization, folder, progress,
        inputs.steps, beta=inputs.beta, reading=inputs.reading,
    )  # fmt: skip


def run_partial_pairs(
    inputs: PartialPairsInputs, folder: Path, progress: ProgressBar
) -> StageResult:
    """Train a process reward model on partial pairs."""
    examples = partial_pairs(
        inputs.partial_pairs, inputs.truncation, inputs.weight, inputs.weight_max,
        inputs.normalize, inputs.seed,
    )  # fmt: skip
    if inputs.max_partial_pairs is not None:
        examples = first_partial_pairs(examples, inputs.max_partial_pairs)
    write_examples(folder / "examples.parquet", examples)
    _write_held_out(inputs.held_out, inputs.chat, folder)
    return inputs.trainer.train(
        inputs.objective, "reward", inputs.checkpoint, inputs.optimization, folder, progress,
        beta=inputs.beta, reading=inputs.reading,
    )  # fmt: skip


def run_implicit(inputs: ImplicitInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Train an implicit PRM on labels of whole responses."""
    return inputs.trainer.train(
        inputs.objective, "policy", inputs.checkpoint, inputs.optimization, folder, progress,
        examples=inputs.examples,
        held_out=inputs.held_out if inputs.held_out.is_file() else None,
        beta=inputs.beta,
    )  # fmt: skip


def _write_held_out(held_out: HeldOut, chat: Chat, folder: Path) -> None:
    """Write held_out.parquet, if there are pairs."""
    pairs = held_out_pairs(held_out.files, held_out.count)
    if rows := [whole_pair(pair, chat, held_out.grid) for pair in pairs]:
        write_examples(folder / "held_out.parquet", rows)
