"""The real worker group: Ray Train, Ray Data, DeepSpeed ZeRO-3; two workers, one of them killed."""

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import own_ray

from actors.training import JobState
from jobs.sweep.training_group import TrainerGroup
from orchestrator.conversations.chat import load_chat
from orchestrator.objectives.examples import PairExample
from orchestrator.tasks.helpdesk.agents import demonstration, prompts
from orchestrator.training.files import write_examples
from orchestrator.training.job import TrainingJob

STEPS, PAIRS_PER_STEP, KILLED_AT = 40, 4, 27
TOLERANCE = 1e-4  # relative, of each step's loss


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with own_ray():
        yield


def job(checkpoint: str, folder: Path) -> TrainingJob:
    """One epoch over pairs cut at several places; the longer response is preferred."""
    chat = load_chat(checkpoint)
    rows = []
    texts = [demonstration(prompt, 0) for prompt in prompts(STEPS * PAIRS_PER_STEP + 1, 0)]
    for number, (one, other) in enumerate(pairwise(texts)):
        prompt = chat.prompt_ids(one.prompt.messages)
        sides = sorted((chat.response_ids(row.response) for row in (one, other)), key=len)[::-1]
        cuts = (2 + number % 5, 99)
        rows.append(PairExample(prompt, sides[0], sides[1], cuts, cuts, (1.5, 1.0)))
    folder.mkdir()
    write_examples(folder / "examples.parquet", rows)
    return TrainingJob(
        key="group", objective="bradley_terry", start="policy_to_reward", checkpoint=checkpoint,
        examples=str(folder / "examples.parquet"), output=str(folder / "checkpoint"),
        learning_rate=5e-3, batch_size=2 * PAIRS_PER_STEP, epochs=1, steps=None, warmup_steps=0,
        closed=True, seed=0, precision="float32", checkpoint_steps=10, micro_batch_tokens=300,
        deepspeed={
            "zero_allow_untested_optimizer": True, "gradient_clipping": 1.0,
            "optimizer": {"type": "AdamW", "params": {"torch_adam": True}},
            "zero_optimization": {"stage": 3},
        },
    )  # fmt: skip


def trained(job: TrainingJob, workers: int, storage: Path, progress: Any) -> dict[str, Any]:
    group = TrainerGroup(workers, 0.4, 0, 1, 0.2, str(storage))
    try:
        return group.train(job, progress)
    finally:
        group.close()


def workers_of_training() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_a_worker_killed_in_mid_epoch_costs_no_row_and_no_accuracy(
    cluster: None, word_policy: str, tmp_path: Path
) -> None:
    """Two ZeRO-3 workers, one killed, against one that nobody disturbs."""
    alone = trained(job(word_policy, tmp_path / "one"), 1, tmp_path / "ray_one", lambda state: None)
    assert len(alone["loss"]) == STEPS
    assert np.mean(alone["loss"][-10:]) < 0.95 * np.mean(alone["loss"][:5]), "it learns something"
    killed: list[int] = []

    def kill_one(state: JobState) -> None:
        if state.done_steps >= KILLED_AT and not killed:
            found = workers_of_training()
            assert len(found) == 2
            killed.append(found[0].pid)
            os.kill(found[0].pid, signal.SIGKILL)

    two = job(word_policy, tmp_path / "two")
    disturbed = trained(two, 2, tmp_path / "ray_two", kill_one)
    assert killed
    assert disturbed["resumed_at"] in (10, 20, 30), "taken up at the last checkpoint that is whole"
    assert disturbed["loss"] == pytest.approx(alone["loss"], rel=TOLERANCE)
    assert disturbed["rows"] == alone["rows"] == STEPS * PAIRS_PER_STEP
