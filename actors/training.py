"""The training desk, and the loop of the warm Ray Train workers that take their jobs from it.

Starting a worker group costs about as much as training a small model, so one group serves all
trainings of a sweep: a worker asks the desk for job 0, 1, 2, ... and trains each. When a worker
dies, Ray Train starts the group anew and it goes on with the first unfinished job.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch

from orchestrator.training.loop import LossIsNotFinite, TrainingJob, run_job


@dataclass
class JobState:
    """Where one training stands."""

    job: TrainingJob
    done_steps: int = 0
    steps: int = 0
    loss: float = float("nan")
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
        return next((i for i, s in enumerate(self._jobs) if s.result is None), len(self._jobs))

    async def progress(self, number: int, done: int, steps: int, loss: float) -> None:
        """Rank 0 says how far it is."""
        state = self._jobs[number]
        state.done_steps, state.steps, state.loss = done, steps, loss

    async def finish(self, number: int, result: dict[str, Any]) -> None:
        """Rank 0 says that a job's checkpoint is written."""
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


def training_worker(config: dict[str, Any]) -> None:
    """Ray Train's loop of each worker: takes jobs from the desk until it is closed."""
    desk = config["desk"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    if not config["gpus"]:  # Ray hides no card from a worker that asked for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["DS_ACCELERATOR"] = "cpu"
        torch.set_num_threads(config["threads"])
    number = ray.get(desk.first_unfinished.remote())
    while (job := ray.get(desk.take.remote(number))) is not None:

        def report(done: int, steps: int, loss: float, number: int = number) -> None:
            if rank == 0:
                desk.progress.remote(number, done, steps, loss)

        try:
            result = run_job(job, rank, world_size, report)
        except LossIsNotFinite as error:
            ray.get(desk.fail.remote(number, str(error)))
            raise
        if rank == 0:
            ray.get(desk.finish.remote(number, result.to_dict()))
        ray.train.report({"job": number, "loss": result.loss[-1], "steps": result.steps})
        number += 1
