"""The job queue of the training workers, and the loop in which each Ray Train worker takes jobs.

Starting a group of workers costs about as much as training a small model, so one group trains all
models of a sweep: its workers take job 0, 1, 2, ... from the queue. If a worker dies, Ray Train
restarts the group, which resumes the first unfinished job from that job's last checkpoint.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch

from actors.stream import stream
from orchestrator.objectives.examples import Example
from orchestrator.training.job import TrainingJob
from orchestrator.training.loop import run_job

PLACEMENT_GROUP_FILE = "placement_group"  # holds the id of the workers' placement group
# Errors of the job itself. The job is marked as failed, so a restarted worker group skips it. After
# any other error, which the death of another worker may have caused, the job is retried.
JOB_ERRORS = (ValueError, TypeError, LookupError, NameError, ArithmeticError)


@dataclass
class JobState:
    """The state of one training job.

    Attributes:
        job: the job.
        done_steps: number of finished steps.
        steps: number of steps; 0 before the training starts.
        loss: last loss.
        metrics: held-out metrics by step.
        result: result of a finished training, as plain values.
        error: message of an error that a restart cannot fix.
    """

    job: TrainingJob
    done_steps: int = 0
    steps: int = 0
    loss: float = float("nan")
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: str | None = None


@ray.remote(num_cpus=0, max_concurrency=64)
class TrainingQueue:
    """The training jobs of a sweep in order, with their progress and results."""

    def __init__(self) -> None:
        self._jobs: list[JobState] = []
        self._closed = False
        self._changed = asyncio.Condition()

    async def submit(self, job: TrainingJob) -> int:
        """Add a job and return its number."""
        async with self._changed:
            self._jobs.append(JobState(job))
            self._changed.notify_all()
        return len(self._jobs) - 1

    async def take(self, number: int) -> TrainingJob | None:
        """Wait for job ``number`` and return it; None if the queue is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._jobs) > number)
        return None if self._closed else self._jobs[number].job

    async def first_unfinished(self) -> int:
        """Return the number of the first job without result or error.

        If all jobs are finished, it is the number of the next job, ``len(jobs)``.
        """
        return next(
            (i for i, s in enumerate(self._jobs) if s.result is None and s.error is None),
            len(self._jobs),
        )

    async def progress(self, number: int, done: int, steps: int, loss: float) -> None:
        """Store the progress that rank 0 reports."""
        state = self._jobs[number]
        state.done_steps, state.steps, state.loss = done, steps, loss

    async def evaluated(self, number: int, step: int, metrics: Mapping[str, float]) -> None:
        """Store the held-out metrics that rank 0 reports."""
        self._jobs[number].metrics[step] = dict(metrics)

    async def finish(self, number: int, result: dict[str, Any]) -> None:
        """Store the result of a job whose model rank 0 has written."""
        self._jobs[number].result = result

    async def fail(self, number: int, error: str) -> None:
        """Store the error of a job that cannot be trained."""
        self._jobs[number].error = error

    async def state(self, number: int) -> JobState:
        """Return the state of a job."""
        return self._jobs[number]

    async def close(self) -> None:
        """Close the queue, which ends the workers."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class RayTrainBackend:
    """The ``TrainingBackend`` of a Ray Train worker.

    It reads rows with Ray Data, stores checkpoints with Ray Train, and reports progress to the
    queue.

    Args:
        queue: the job queue.
        number: number of the job.
        data_task_cpus: logical CPUs of each reading task.
    """

    def __init__(self, queue: Any, number: int, data_task_cpus: float) -> None:
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self._queue, self._number, self._cpus = queue, number, data_task_cpus

    def rows(self, file: Path, pieces: Sequence[Sequence[int]]) -> Iterator[Example]:
        """Iterate over this worker's rows."""
        return stream(file, pieces, self._cpus)

    def progress(self, done: int, steps: int, loss: float) -> None:
        """Report progress to the queue."""
        if self.rank == 0:
            self._queue.progress.remote(self._number, done, steps, loss)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report held-out metrics to the queue."""
        if self.rank == 0:
            self._queue.evaluated.remote(self._number, step, metrics)

    def save_checkpoint(self, write: Callable[[Path], None], step: int) -> None:
        """Report this worker's files of a checkpoint; Ray Train merges those of all workers."""
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(
                {"job": self._number, "step": step},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
            )

    @contextmanager
    def last_checkpoint(self) -> Iterator[Path | None]:
        """Provide the folder of the last checkpoint that all workers reported.

        It may belong to an earlier job, so the caller checks its key.
        """
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)


def training_worker(config: dict[str, Any]) -> None:
    """Take and train jobs until the queue is closed; Ray Train runs this on each worker.

    Args:
        config: the queue, the settings of ``TrainerGroup`` and the folder of Ray Train's files.
    """
    queue = config["queue"]
    if not config["gpus"]:  # Ray does not hide GPUs from a worker that requests none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(config["threads"])
    _write_placement_group(Path(config["storage"]))
    number = ray.get(queue.first_unfinished.remote())
    while (job := ray.get(queue.take.remote(number))) is not None:
        backend = RayTrainBackend(queue, number, config["data_task_cpus"])
        try:
            result = run_job(job, backend)
        except JOB_ERRORS as error:
            ray.get(queue.fail.remote(number, f"{type(error).__name__}: {error}"))
            raise
        if backend.rank == 0:
            ray.get(queue.finish.remote(number, result.to_dict()))
        ray.train.report({"job": number, "loss": result.loss[-1], "steps": result.steps})
        number += 1


def _write_placement_group(storage: Path) -> None:
    """Write the id of the workers' placement group on rank 0, so that the driver can remove it."""
    group = ray.util.get_current_placement_group()
    if group is not None and ray.train.get_context().get_world_rank() == 0:
        storage.mkdir(parents=True, exist_ok=True)
        (storage / PLACEMENT_GROUP_FILE).write_text(group.id.hex())
