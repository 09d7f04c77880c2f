"""The warm worker group: one Ray Train run with DeepSpeed that trains one job after another."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import PlacementGroupID
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup

from actors.training import PLACEMENT_GROUP_FILE, JobState, TrainingQueue, training_worker
from orchestrator.training.job import TrainingJob

POLL_SECONDS = 0.5
WORKER_FAILURES = 3  # how often Ray Train may restart the group


class TrainerGroup:
    """Training workers that run job after job; started by the first job, ended by ``close``.

    Args:
        workers: how many processes train together.
        cpus: logical CPUs of each.
        gpus: GPUs of each; 0 trains on CPUs with gloo.
        threads: torch threads of each on a CPU.
        data_task_cpus: logical CPUs of each task that reads training rows.
        storage: folder of Ray Train's files. The last checkpoint of an unfinished training is
            kept there, also for another run of the job.
    """

    def __init__(
        self,
        workers: int,
        cpus: float,
        gpus: float,
        threads: int,
        data_task_cpus: float,
        storage: str,
    ) -> None:
        self._scaling = ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        )
        self._backend = "nccl" if gpus else "gloo"
        self._storage = storage
        self._settings = {
            "gpus": gpus, "threads": threads, "data_task_cpus": data_task_cpus, "storage": storage,
        }  # fmt: skip
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def train(self, job: TrainingJob, progress: Callable[[JobState], None]) -> dict[str, Any]:
        """Run one job; block until its checkpoint is written.

        Raises:
            RuntimeError: a loss is not finite, the worker group died more often than it may, or its
                code raised.
        """
        self._start()
        number = ray.get(self._queue.submit.remote(job))
        while True:
            state: JobState = ray.get(self._queue.state.remote(number))
            progress(state)
            if state.result is not None:
                return state.result
            if state.error is not None:
                raise RuntimeError(state.error)
            if self._thread is None or not self._thread.is_alive():
                raise RuntimeError(f"training of {job.output} failed") from self._error
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End the workers."""
        if self._queue is None:
            return
        ray.get(self._queue.close.remote())
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._queue = self._thread = None

    def _start(self) -> None:
        if self._thread is not None:
            return
        self._queue = TrainingQueue.remote()  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._thread.start()

    def _fit(self) -> None:
        trainer = TorchTrainer(
            training_worker,
            train_loop_config={"queue": self._queue, **self._settings},
            torch_config=TorchConfig(backend=self._backend),
            scaling_config=self._scaling,
            run_config=RunConfig(
                name="trainings",
                storage_path=self._storage,
                failure_config=FailureConfig(max_failures=WORKER_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            trainer.fit()
        except BaseException as error:  # handed to the thread that waits for the job
            self._error = error


def free_placement_group(storage: Path) -> None:
    """Remove the placement group of training workers that were killed.

    Ray keeps a placement group until the job ends, even if the actor that created it is dead. The
    next group of workers would wait for its resources forever.

    Args:
        storage: folder of Ray Train's files of the group.
    """
    file = storage / PLACEMENT_GROUP_FILE
    if ray.is_initialized() and file.is_file():
        group_id = PlacementGroupID(bytes.fromhex(file.read_text()))
        ray.util.remove_placement_group(PlacementGroup(group_id))
        file.unlink(missing_ok=True)
