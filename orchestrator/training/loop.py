"""The train loop with a DeepSpeed engine: it trains one job and writes a Hugging Face checkpoint.

All workers make the same plan of steps. Each computes its share of a step and divides its loss by
the number of terms of the step on all workers, so that the gradient does not depend on the number
of workers or micro-batches. Rows, checkpoints and progress go through a ``TrainingBackend``, so the
loop does not depend on Ray.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from orchestrator.conversations.chat import load_chat
from orchestrator.objectives.examples import Example
from orchestrator.objectives.objective import OBJECTIVES
from orchestrator.randomness import stream_key
from orchestrator.training.checkpoint import (
    Progress,
    all_reduce_sum,
    read_progress,
    read_state,
    save_model,
    write_state,
)
from orchestrator.training.evaluation import HeldOut
from orchestrator.training.files import sizes_and_tokens
from orchestrator.training.job import TrainingBackend, TrainingJob, TrainingResult
from orchestrator.training.memory import free_memory
from orchestrator.training.model_with_loss import ModelWithLoss, load_initial_model
from orchestrator.training.plan import MicroBatch, shares, steps_of_count, steps_of_epochs

PIECE = 4_096  # rows, of all workers, that are read together
SHOWN_ROWS = 20  # rows of a step that an error lists


class LossIsNotFinite(ValueError):
    """A loss is NaN or infinite; the message names the step and rows of it."""


def run_job(job: TrainingJob, backend: TrainingBackend) -> TrainingResult:
    """Train a model and write it on rank 0. Needs an initialised process group.

    Raises:
        LossIsNotFinite: a loss is NaN or infinite.
    """
    started = time.monotonic()
    training = Training(job, backend)
    resumed_at = training.resume()
    training.run()
    result = training.result()
    result.resumed_at, result.seconds = resumed_at, time.monotonic() - started
    save_model(training.engine, training.chat, Path(job.output), backend.rank)
    training.engine.destroy()
    del training
    free_memory()
    return result


class Training:
    """One training on one worker.

    Args:
        job: what is trained, and how.
        backend: reads rows, stores checkpoints and receives progress.
    """

    def __init__(self, job: TrainingJob, backend: TrainingBackend) -> None:
        import deepspeed  # its import takes seconds; only a training worker needs it

        self.job, self._backend = job, backend
        self.chat = load_chat(job.checkpoint, score_at=job.score_at)
        self._sizes, tokens = sizes_and_tokens(Path(job.examples))
        self._steps = _steps(job, self._sizes)
        model = ModelWithLoss(job, load_initial_model(job), self.chat)
        model.train()
        self.engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            config=_deepspeed_config(job),
            lr_scheduler=lambda optimizer: LambdaLR(optimizer, _schedule(job, len(self._steps))),
        )
        # Closing tokens follow every cut of both responses of a pair; other rows have none.
        closing = 2 * len(model.closing_ids) if model.objective.takes_partial_pairs() else 0
        self._tokens = [t + s * closing for t, s in zip(tokens, self._sizes, strict=True)]
        self._progress = Progress(job.key, backend.workers)
        self._curve = torch.zeros(len(self._steps), 3, dtype=torch.float64)
        self._held_out = (
            HeldOut(Path(job.evaluation), backend.rank, backend.workers, job.micro_batch_tokens)
            if job.evaluation
            else None
        )

    def resume(self) -> int:
        """Load the last checkpoint of this training and return its step; 0 if there is none."""
        with self._backend.last_checkpoint() as folder:
            progress = read_progress(folder, self.job.key, self._backend.workers)
            if folder is None or progress is None:
                return 0
            read_state(self.engine, folder)
        self._progress = progress
        curve = torch.tensor(progress.curve, dtype=torch.float64)
        self._curve[: progress.step] = curve.reshape(-1, 3)
        for step, metrics in progress.metrics().items():
            self._backend.evaluated(step, metrics)
        return progress.step

    def run(self) -> None:
        """Do all remaining steps, with the evaluations and checkpoints between them."""
        first, count = self._progress.step, len(self._steps)
        plan = [self._share(step) for step in self._steps[first:]]
        rows = self._backend.rows(Path(self.job.examples), _pieces(plan, self._backend.workers))
        for number, batches in enumerate(plan, first + 1):
            self._seed(number)
            loss = self._step(number, batches, rows)
            self._backend.progress(number, count, loss)
            if _due(number, self.job.evaluation_steps) or number == count:
                self._evaluate(number)
            if _due(number, self.job.checkpoint_steps) and number < count:
                self._save_checkpoint(number)
        self._reduce(count)

    def result(self) -> TrainingResult:
        """Return the result of the finished training."""
        curve = torch.tensor(self._progress.curve, dtype=torch.float64).reshape(-1, 3)
        mean = curve[:, :2] / curve[:, 2:].clamp(min=1)
        trained_on = {row for step in self._steps for row in step}
        has_partial_pairs = OBJECTIVES[self.job.objective].takes_partial_pairs()
        partial_pairs = sum(self._sizes[row] for row in trained_on) if has_partial_pairs else 0
        return TrainingResult(
            steps=len(self._steps),
            rows=len(trained_on),
            partial_pairs=partial_pairs,
            loss=mean[:, 0].tolist(),
            accuracy=mean[:, 1].tolist(),
            evaluation=self._progress.evaluation,
        )

    def _share(self, step: Sequence[int]) -> list[MicroBatch]:
        most = self.job.micro_batch_tokens
        return shares(step, self._tokens, self._backend.workers, most)[self._backend.rank]

    def _step(self, number: int, batches: Sequence[MicroBatch], rows: Iterator[Example]) -> float:
        """Do one optimizer step and return this worker's mean loss."""
        model: ModelWithLoss = self.engine.module
        examples = [[next(rows) for _ in batch.rows] for batch in batches]
        total = self._global_terms(batches, examples)
        model.begin_step(list(zip(batches, examples, strict=True)))
        for i, (batch, of_batch) in enumerate(zip(batches, examples, strict=True)):
            self.engine.set_gradient_accumulation_boundary(i == len(batches) - 1)
            loss, right = self.engine(of_batch)
            # DeepSpeed averages over the workers; the loss is a mean over the terms of all workers.
            self.engine.backward(loss * (self._backend.workers / total if batch.counts else 0.0))
            if batch.counts:
                terms = model.num_loss_terms(of_batch)
                self._curve[number - 1] += torch.tensor([float(loss.detach()), right, terms])
        self.engine.step()
        return self._checked(number)

    def _global_terms(
        self, batches: Sequence[MicroBatch], examples: Sequence[Sequence[Example]]
    ) -> float:
        """Return the number of terms of the step's loss, of all workers."""
        model: ModelWithLoss = self.engine.module
        counted = [rows for batch, rows in zip(batches, examples, strict=True) if batch.counts]
        terms = float(sum(model.num_loss_terms(rows) for rows in counted))
        return float(all_reduce_sum(torch.tensor([terms]), model.device))

    def _checked(self, number: int) -> float:
        loss, _, count = self._curve[number - 1].tolist()
        if not torch.isfinite(self._curve[number - 1, 0]):
            step = self._steps[number - 1]
            shown = step[:SHOWN_ROWS]
            raise LossIsNotFinite(
                f"{self.job.output}: the loss of step {number} of {len(self._steps)} is not finite;"
                f" the first {len(shown)} of the step's {len(step)} rows, of all workers, in"
                f" {self.job.examples} (row numbers from 0): {shown}"
            )
        return float(loss) / max(float(count), 1.0)

    def _seed(self, number: int) -> None:
        """Seed dropout by step, so that a resumed training draws what an undisturbed one draws."""
        torch.manual_seed(stream_key(self.job.seed, "dropout", number, self._backend.rank))

    def _evaluate(self, number: int) -> None:
        if self._held_out is None:
            return
        metrics = self._held_out.measure(self.engine.module)
        for name, value in metrics.items():
            self._progress.evaluation.setdefault(name, []).append((number, value))
        self._backend.evaluated(number, metrics)

    def _save_checkpoint(self, number: int) -> None:
        self._reduce(number)
        self._backend.save_checkpoint(
            lambda folder: write_state(self.engine, self._progress, self._backend.rank, folder),
            number,
        )

    def _reduce(self, number: int) -> None:
        """Sum the curve over the workers, from the last call up to this step."""
        first = self._progress.step
        if number > first:
            sums: Tensor = all_reduce_sum(self._curve[first:number], self.engine.module.device)
            self._progress.curve += sums.tolist()
        self._progress.step = number


def _pieces(plan: Sequence[Sequence[MicroBatch]], workers: int) -> list[list[int]]:
    """Return a worker's row numbers in order, in pieces that are read together."""
    pieces: list[list[int]] = [[]]
    for batches in plan:
        if len(pieces[-1]) * workers >= PIECE:
            pieces.append([])
        pieces[-1] += [row for batch in batches for row in batch.rows]
    return [piece for piece in pieces if piece]


def _steps(job: TrainingJob, sizes: Sequence[int]) -> list[list[int]]:
    """Return the row numbers of each step."""
    if job.steps is not None:
        return steps_of_count(sizes, job.batch_size, job.steps, job.seed)
    return steps_of_epochs(sizes, job.batch_size, job.epochs, job.seed)


def _due(number: int, every: int | None) -> bool:
    """Whether step ``number`` is a multiple of ``every``; never if that is None."""
    return every is not None and number % every == 0


def _schedule(job: TrainingJob, steps: int) -> Callable[[int], float]:
    """Return the factor of the learning rate by step: linear warm-up and decay (paper C.4)."""
    return lambda step: min(1.0, (step + 1) / (job.warmup_steps + 1)) * (1 - step / max(steps, 1))


def _deepspeed_config(job: TrainingJob) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(job.deepspeed))
    config["train_micro_batch_size_per_gpu"] = 1  # the plan counts rows, not DeepSpeed
    config.setdefault("optimizer", {}).setdefault("params", {})["lr"] = job.learning_rate
    return config
