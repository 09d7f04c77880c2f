"""A package whose entry points cannot be used ends each job in one line with exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, own_cluster

GROUPS = ("methods", "metrics", "objectives", "scorers", "tasks", "judges")
SECONDS = 600  # time limit of a job that only starts


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a job in an environment in which the package is installed."""
    environment = {**own_cluster(), "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def package_with(folder: Path, group: str, entry_point: str, **modules: str) -> Path:
    info = folder / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[prm_orchestrator.{group}]\n{entry_point}\n")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "group", [GROUPS[0], *(pytest.param(g, marks=pytest.mark.slow) for g in GROUPS[1:])]
)
def test_a_sweep_names_the_package(group: str, tmp_path: Path) -> None:
    package = package_with(tmp_path, group, "mine = not_there.module")
    told = refusal(run(package, "jobs/full_sweep.py", "--dry-run"))
    assert f"package broken, entry point 'mine' of prm_orchestrator.{group}" in told
    assert "No module named 'not_there'" in told and "uninstall the package" in told


@pytest.mark.parametrize("job", ["decode", pytest.param("score", marks=pytest.mark.slow)])
def test_the_help_of_a_job_names_the_package(job: str, tmp_path: Path) -> None:
    package = package_with(tmp_path, "scorers", "mine = faulty", faulty="1 / 0\n")
    told = refusal(run(package, f"jobs/{job}.py", "--help"))
    assert "entry point 'mine' of prm_orchestrator.scorers" in told and "ZeroDivisionError" in told


@pytest.mark.slow
def test_a_method_of_a_name_in_use_is_named_by_a_running_job(
    tmp_path: Path, word_policy: str
) -> None:
    taken = (
        "from typing import Literal\n"
        "from orchestrator.search.method import SearchMethod, register\n"
        "@register\n"
        "class Mine(SearchMethod):\n"
        "    name: Literal['cbs'] = 'cbs'\n"
    )
    package = package_with(tmp_path, "methods", "mine = taken", taken=taken)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "my printer is broken"}\n')
    told = refusal(run(
        package, "jobs/decode.py", "--policy", word_policy, "--reward", word_policy,
        "--method", "cbs", "--prompts", str(prompts), "--out", str(tmp_path / "out"),
    ))  # fmt: skip
    assert "entry point 'mine'" in told and "'cbs' is defined twice" in told
