"""The training desk, and the loop of the warm Ray Train workers that take their jobs from it.

Starting a worker group costs about as much as training a small model, so one group serves all
trainings of a sweep: a worker asks the desk for job 0, 1, 2, ... and trains each. When a worker
dies, Ray Train starts the group anew, and it goes on with the first unfinished job from that job's
last checkpoint.
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
from orchestrator.training.examples import Example
from orchestrator.training.job import TrainingJob
from orchestrator.training.loop import run_job

# What raises these would do so again. All else may come of another worker's death: Ray Train tries
# again.
PLACE_NOTE = "placement_group"  # a file beside Ray Train's own: which place the group has
OWN_FAULTS = (ValueError, TypeError, LookupError, NameError, ArithmeticError)


@dataclass
class JobState:
    """Where one training stands; ``measures`` are the held-out ones by step, as they came."""

    job: TrainingJob
    done_steps: int = 0
    steps: int = 0
    loss: float = float("nan")
    measures: dict[int, dict[str, float]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: str | None = None  # a fault of the training itself, which no restart mends


@ray.remote(num_cpus=0, max_concurrency=64)
class TrainingDesk:
    """Holds the jobs of a sweep in order, with their progress and results."""

    def __init__(self) -> None:
        self._jobs: list[JobState] = []
        self._closed = False
        self._changed = asyncio.Condition()

    async def submit(self, job: TrainingJob) -> int:
        """Adds a job; gives its number."""
        async with self._changed:
            self._jobs.append(JobState(job))
            self._changed.notify_all()
        return len(self._jobs) - 1

    async def take(self, number: int) -> TrainingJob | None:
        """Waits for job ``number``; None when the desk is closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or len(self._jobs) > number)
        return None if self._closed else self._jobs[number].job

    async def first_unfinished(self) -> int:
        """The job that a group, new or started again, begins with."""
        return next(
            (i for i, s in enumerate(self._jobs) if s.result is None and s.error is None),
            len(self._jobs),
        )

    async def progress(self, number: int, done: int, steps: int, loss: float) -> None:
        """Rank 0 says how far it is."""
        state = self._jobs[number]
        state.done_steps, state.steps, state.loss = done, steps, loss

    async def evaluated(self, number: int, step: int, measures: Mapping[str, float]) -> None:
        """Rank 0 says what was measured on the held-out rows."""
        self._jobs[number].measures[step] = dict(measures)

    async def finish(self, number: int, result: dict[str, Any]) -> None:
        """Rank 0 says that a job's model is written."""
        self._jobs[number].result = result

    async def fail(self, number: int, error: str) -> None:
        """A worker says that a job cannot be trained, whoever tries."""
        self._jobs[number].error = error

    async def state(self, number: int) -> JobState:
        """Progress and, when done, the result of a job."""
        return self._jobs[number]

    async def close(self) -> None:
        """Lets the workers end."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()


class RayHost:
    """A Ray Train worker as the train loop sees it: Ray Data reads, Ray Train keeps checkpoints.

    Args:
        desk: the training desk.
        number: of the job.
        data_task_cpus: logical CPUs of each reading task.
    """

    def __init__(self, desk: Any, number: int, data_task_cpus: float) -> None:
        context = ray.train.get_context()
        self.rank, self.workers = context.get_world_rank(), context.get_world_size()
        self._desk, self._number, self._cpus = desk, number, data_task_cpus

    def rows(self, file: Path, pieces: Sequence[Sequence[int]]) -> Iterator[Example]:
        """This worker's shard, streamed."""
        return stream(file, pieces, self._cpus)

    def progress(self, done: int, steps: int, loss: float) -> None:
        """Tells the desk."""
        if self.rank == 0:
            self._desk.progress.remote(self._number, done, steps, loss)

    def evaluated(self, step: int, measures: Mapping[str, float]) -> None:
        """Tells the desk."""
        if self.rank == 0:
            self._desk.evaluated.remote(self._number, step, measures)

    def keep(self, write: Callable[[Path], None], step: int) -> None:
        """Reports this worker's files of a checkpoint; Ray Train joins those of all workers."""
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report(
                {"job": self._number, "step": step},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
            )

    @contextmanager
    def kept(self) -> Iterator[Path | None]:
        """The last checkpoint that all workers have reported, of whatever job."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)


def training_worker(config: dict[str, Any]) -> None:
    """Ray Train's loop of each worker: takes jobs from the desk until it is closed."""
    desk = config["desk"]
    if not config["gpus"]:  # Ray hides no card from a worker that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(config["threads"])
    _note_place(Path(config["storage"]))
    number = ray.get(desk.first_unfinished.remote())
    while (job := ray.get(desk.take.remote(number))) is not None:
        host = RayHost(desk, number, config["data_task_cpus"])
        try:
            result = run_job(job, host)
        except OWN_FAULTS as error:
            ray.get(desk.fail.remote(number, f"{type(error).__name__}: {error}"))
            raise
        if host.rank == 0:
            ray.get(desk.finish.remote(number, result.to_dict()))
        ray.train.report({"job": number, "loss": result.loss[-1], "steps": result.steps})
        number += 1


def _note_place(storage: Path) -> None:
    """Rank 0 writes down the group's place, for whoever has to give it back."""
    place = ray.util.get_current_placement_group()
    if place is not None and ray.train.get_context().get_world_rank() == 0:
        storage.mkdir(parents=True, exist_ok=True)
        (storage / PLACE_NOTE).write_text(place.id.hex())
