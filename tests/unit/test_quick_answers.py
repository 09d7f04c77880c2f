"""Help, a wrong option and a wrong config are answered before anything that computes is imported.

What is imported is looked at, not the time: torch, Ray and transformers take seconds anywhere.
"""

import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from orchestrator.config.load import ROOT

HEAVY = ("torch", "ray", "transformers", "mlflow", "deepspeed", "vllm", "datasets", "scipy.stats")
# New processes, in which what all jobs import is loaded, and nothing of the tests.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["typer", "orchestrator.config.load"])
SMOKE = ["--config", str(ROOT / "configs" / "smoke.yaml")]
DECODE = ["--policy", "/none", "--method", "bon", "--prompts", "p.jsonl", "--out", "out"]
SCORE = ["--input", "p.jsonl", "--output", "out", "--reward", "/none"]
SPACE = ["--space", "training.prm.learning_rate=loguniform(1e-4,1e-2)"]
# Job, arguments, exit code, what is said.
CASES: list[tuple[str, list[str], int, str]] = [
    ("full_sweep", ["--help"], 0, "Usage"),
    ("full_sweep", ["--no-such-option"], 2, "No such option"),
    ("full_sweep", ["--config", "none.yaml"], 2, "no such file"),
    ("full_sweep", ["training.zero_stage=4"], 2, "training.zero_stage = 4: "),
    ("full_sweep", ["trainig.workers=1"], 2, "did you mean 'training'?"),
    ("full_sweep", ["models.policy=/none"], 2, "models.policy = '/none': no such folder"),
    ("full_sweep", ["output_dir=/dev/null/x"], 2, "output_dir = '/dev/null/x': "),
    ("full_sweep", ["search.cbs.beams=1000000000"], 2, "search.cbs.beams = 1000000000: "),
    ("full_sweep", ["training.deepspeed=none.json"], 2, "training.deepspeed = 'none.json'"),
    ("full_sweep", [*SMOKE, "--force", "polcy"], 2, "--force polcy: no such stage; valid: data"),
    ("full_sweep", ["tracking.uri=http://127.0.0.1:1"], 2, "tracking.uri = http://127.0.0.1:1: "),
    ("full_sweep", ["search.engine=vllm"], 2, "search.engine = 'vllm': cards needs the policy"),
    (
        "full_sweep", ["search.engine=vllm", "cluster.search_actors=0"], 2,
        "cluster.search_actors = 0: search.engine vllm runs in search actors",
    ),
    ("train", ["--help"], 0, "Usage"),
    ("train", ["prm"], 2, "prm: no such model; valid: policy"),
    ("train", ["orm", "seed=-1"], 2, "seed = -1: "),
    ("train", ["orm", "--force", "polcy"], 2, "--force polcy: no such stage"),
    ("tune", ["--help"], 0, "Usage"),
    ("tune", ["prm_sst"], 2, "--space: nothing is searched"),
    ("tune", ["prm_sst", "--space", "seed=once(1)"], 2, "--space 'seed=once(1)': "),
    ("tune", ["prm", *SPACE], 2, "prm: no such model"),
    ("tune", ["prm_sst", *SPACE, "--metric", "speed"], 2, "--metric speed: "),
    ("tune", ["prm_sst", *SPACE, "--trials", "1000000000"], 2, "--trials = 1000000000: valid: 1"),
    ("tune", ["prm_sst", *SPACE, "--out", "/dev/null/x"], 2, "--out = '/dev/null/x': "),
    ("tune", ["prm_sst", "--space", "seed=choice(1,-1)"], 2, "seed = -1: "),
    ("decode", ["--help"], 0, "Usage"),
    ("decode", DECODE[2:], 2, "Missing option"),
    ("decode", [*DECODE[:3], "nothing", *DECODE[4:]], 2, "method = 'nothing': no such method"),
    (
        "decode",
        [*DECODE[:3], "cards", *DECODE[4:], "--engine=vllm", "target_reward=1", "beta=1"],
        2, "--engine = 'vllm': cards needs the policy's entropies",
    ),
    ("decode", [*DECODE, "m=5"], 2, "method.m = 5: bon has no such field"),
    ("decode", [*DECODE, "n=true"], 2, "method.n = True: "),
    ("decode", [*DECODE, "--temperature", "0"], 2, "--temperature = 0.0: "),
    ("decode", [*DECODE], 2, "--prompts = 'p.jsonl': no such file"),
    ("score", ["--help"], 0, "Usage"),
    ("score", ["--no-such-option"], 2, "No such option"),
    ("score", SCORE, 2, "--input = 'p.jsonl': no such file"),
    ("bench", ["--help"], 0, "Usage"),
    ("bench", ["search", "--help"], 0, "cbs8x8x30"),
    ("bench", ["rewards", "--only", "nothing"], 2, "tlt_closed"),
    ("bench", ["search", "--device", "tpu"], 2, "cpu, cuda"),
    ("bench", ["pools", "--actors", "0"], 2, "--actors"),
]  # fmt: skip


def run_job(job: str, arguments: list[str], cwd: Path, output: Path, results: Connection) -> None:
    """Run a job with its output in a file; send its exit code and the heavy modules."""
    os.environ |= {"NO_COLOR": "1", "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    os.chdir(cwd)
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        sys.argv = [str(ROOT / "jobs" / f"{job}.py"), *arguments]
        code: int | str | None = 0
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
    results.send((code, [name for name in HEAVY if name in sys.modules]))


def answer(job: str, arguments: list[str], cwd: Path) -> tuple[int, list[str], str]:
    """Exit code, heavy modules, and all that was said, as one line."""
    receiver, sender = PROCESSES.Pipe(duplex=False)
    output = cwd.with_name(f"{cwd.name}.output")
    process = PROCESSES.Process(target=run_job, args=(job, arguments, cwd, output, sender))
    process.start()
    sender.close()
    code, heavy = receiver.recv()  # EOFError: the process has died
    process.join()
    return code, heavy, " ".join(output.read_text().splitlines())


@pytest.mark.parametrize(("job", "arguments", "code", "said"), CASES, ids=str)
def test_it_is_answered_without_what_computes(
    job: str, arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    found, heavy, text = answer(job, arguments, tmp_path)
    assert said in text, text
    assert (found, heavy) == (code, [])
    assert "Traceback" not in text and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "arguments", "said"),
    [
        ("decode", [*DECODE, "--reward", "/none"], "--policy = '/none': no such folder"),
        ("decode", DECODE, "--reward: missing; --method bon needs scores"),
        ("score", SCORE, "--reward = '/none': no such folder"),
    ],
)
def test_a_model_that_is_not_there_needs_no_library_to_say_so(
    job: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    found, heavy, text = answer(job, arguments, tmp_path)
    assert said in text, text
    assert (found, heavy) == (2, [])


def test_the_names_of_the_benchmarks_are_those_of_their_cases() -> None:
    from jobs.benchmarks import names
    from jobs.benchmarks.prefixes import CASES as PREFIXES
    from jobs.benchmarks.search_cases import CASES as SEARCHES
    from jobs.benchmarks.setting import SETTINGS

    assert (*PREFIXES, names.PIPELINE) == names.REWARDS
    assert tuple(SEARCHES) == names.SEARCHES and tuple(SETTINGS) == names.DEVICES


def test_a_job_of_another_copy_than_the_installed_one_is_refused(tmp_path: Path) -> None:
    """Its own code would not be what runs."""
    copy = tmp_path / "copy" / "jobs"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "jobs" / "full_sweep.py", copy)
    done = subprocess.run(
        [sys.executable, str(copy / "full_sweep.py"), "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"belongs to {copy.parent}, but this Python imports {ROOT}" in done.stderr
