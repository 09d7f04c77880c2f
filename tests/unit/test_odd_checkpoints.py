"""Checkpoints that are not what they seem are refused before Ray starts, by every job, with why.

Each job's checks run in this process, as the job runs them before anything else; two go through the
real command line.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import ROOT
from support import reward_kinds
from support.odd_checkpoints import DAMAGE, POLICIES, REWARDS, damaged, language_model
from test_decode_options import GIVEN as DECODING

from jobs.batch.decode_options import DecodeOptions
from jobs.batch.score_options import ScoreOptions
from jobs.command_line.exit_codes import BAD_CONFIG
from jobs.sweep.main import sweep_main, train_main
from jobs.tuning.study import study_of
from orchestrator.config.load import ConfigError
from orchestrator.decoding.decoder import Decoder
from orchestrator.tuning.options import TuningOptions

Job = Callable[[str, Path], object]
SCORING: dict[str, Any] = {
    "kind": None, "base": None, "beta": None, "position": "closed", "prefixes": "whole",
    "aggregation": None, "step_delimiter": None, "step_tag": None, "score_label": None,
    "branch_memory_mib": 256, "engine": "transformers", "seed": 0, "actors": 1, "threads": 1,
    "batch_size": 4, "shard_rows": 2, "device": "cpu", "force": False,
}  # fmt: skip


def sweep_with(field: str) -> Job:
    def run(checkpoint: str, folder: Path) -> object:
        return sweep_main(None, [f"{field}={checkpoint}", f"output_dir={folder}"], True, [])

    return run


def train_with(field: str, model: str) -> Job:
    def run(checkpoint: str, folder: Path) -> object:
        return train_main(model, None, [f"{field}={checkpoint}", f"output_dir={folder}"], True, [])

    return run


def tune_with(field: str) -> Job:
    def run(checkpoint: str, folder: Path) -> object:
        request = TuningOptions(
            "prm_sst", ["seed=choice(1,2)"], 2, "held_out_accuracy", "max", 1, "asha"
        )
        return study_of(request, None, [f"{field}={checkpoint}", f"output_dir={folder}"])

    return run


def whole_policy(folder: Path) -> str:
    """A policy that nothing is wrong with, made once for all jobs of a test."""
    place = folder.parent / "whole_policy"
    return str(place) if place.is_dir() else language_model(place)


def decode_with(option: str) -> Job:
    def run(checkpoint: str, folder: Path) -> object:
        (folder / "prompts.txt").write_text("order 1 .\n")
        method = "greedy" if option == "policy" else "bon"
        models = {"policy": whole_policy(folder), "reward": None, "method": method}
        prompts = str(folder / "prompts.txt")
        given = {**DECODING, **models, option: checkpoint, "prompts": prompts}
        return DecodeOptions(**given).resolved().prompt_reader()

    return run


def score(checkpoint: str, folder: Path) -> object:
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "a .", "response": "b ."}) + "\n")
    options = {**SCORING, "input": str(folder / "rows.jsonl"), "output": str(folder / "out")}
    return ScoreOptions(**options, reward=checkpoint).resolved().row_reader()


def reward_of_a_decoder(checkpoint: str, folder: Path) -> object:
    return Decoder(whole_policy(folder), checkpoint)


POLICY_JOBS: dict[str, Job] = {
    "full_sweep": sweep_with("models.policy"),
    "train": train_with("models.policy", "orm"),
    "tune": tune_with("models.policy"),
    "decode": decode_with("policy"),
    "Decoder": lambda checkpoint, folder: Decoder(checkpoint),
}
REWARD_JOBS: dict[str, Job] = {
    "full_sweep orm": sweep_with("models.orm"),
    "full_sweep reference": sweep_with("models.reference"),
    "full_sweep variant": sweep_with("variants.mine.checkpoint"),
    "train": train_with("models.orm", "prm_sst"),
    "tune": tune_with("models.orm"),
    "score": score,
    "decode": decode_with("reward"),
    "Decoder": reward_of_a_decoder,
}
GIVEN_AS = {
    "policy": (POLICY_JOBS, POLICIES, language_model),
    "reward": (REWARD_JOBS, REWARDS, reward_kinds.sequence),
}
CASES = [(role, name) for role in GIVEN_AS for name in (*GIVEN_AS[role][1], *DAMAGE)]


def refusal(job: Job, checkpoint: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a job refuses, before it has begun with anything."""
    folder.mkdir()
    try:
        code = job(checkpoint, folder)
    except ConfigError as error:
        return str(error)
    assert code == BAD_CONFIG, "not refused"
    said = capsys.readouterr().err.strip()
    return said.removeprefix("config error: ")


@pytest.mark.parametrize(("role", "name"), CASES, ids=lambda part: str(part).replace(" ", "-"))
def test_every_job_refuses_it_before_ray_starts_with_the_reason(
    role: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs, own, base = GIVEN_AS[role]
    make, sentence = own[name] if name in own else (damaged(name, base), DAMAGE[name][1])
    checkpoint = make(tmp_path / "odd")
    capsys.readouterr()
    for number, (job_name, job) in enumerate(jobs.items()):
        said = refusal(job, checkpoint, tmp_path / str(number), capsys)
        assert re.search(sentence, said), f"{job_name}: {said}"
        assert checkpoint in said and len(said.splitlines()) == 1, f"{job_name}: {said}"
        assert not ray.is_initialized()


def test_whole_models_pass_the_same_checks(tmp_path: Path) -> None:
    """What the cases are made from: not one of them is refused for another reason."""
    policy = language_model(tmp_path / "policy")
    reward = reward_kinds.sequence(tmp_path / "reward")
    for number, (job, checkpoint) in enumerate(
        [(job, policy) for job in POLICY_JOBS.values()]
        + [(job, reward) for job in REWARD_JOBS.values()]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert job(checkpoint, folder) != BAD_CONFIG


def score_command(checkpoint: str, folder: Path) -> list[str]:
    (folder / "rows.jsonl").write_text('{"prompt": "a .", "response": "b ."}\n')
    return ["score.py", "--input", str(folder / "rows.jsonl"), "--output", str(folder / "out"),
            "--reward", checkpoint]  # fmt: skip


def sweep_command(checkpoint: str, folder: Path) -> list[str]:
    return ["full_sweep.py", f"models.orm={checkpoint}", f"output_dir={folder / 'out'}"]


@pytest.mark.parametrize(
    ("name", "command", "begin"),
    [
        ("a layer without its MLP", sweep_command, "config error: models.orm = "),
        pytest.param(
            "half a tokenizer", score_command, "error: --reward = ", marks=pytest.mark.slow
        ),
    ],
)
def test_the_command_line_ends_with_2_and_one_sentence(
    name: str, command: Callable[[str, Path], list[str]], begin: str, tmp_path: Path
) -> None:
    checkpoint = damaged(name, reward_kinds.sequence)(tmp_path / "odd")
    job, *arguments = command(checkpoint, tmp_path)
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / job), *arguments],
        capture_output=True, text=True, timeout=1_000,
    )  # fmt: skip
    assert done.returncode == BAD_CONFIG, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith(begin)]
    assert len(said) == 1 and re.search(DAMAGE[name][1], said[0]), done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
