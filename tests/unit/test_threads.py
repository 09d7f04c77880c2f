"""Threads that wait sleep: the setting stands before torch is loaded, in every kind of process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from conftest import ROOT, own_ray

NAME = "OMP_WAIT_POLICY"
ENTRANCES = (
    "orchestrator.decoding.decoder", "actors.training", "actors.search", "jobs.steps.training",
)  # fmt: skip


def settings_of(program: str, **variables: str) -> str:
    """What OpenMP read, in its own words, in a process that runs ``program``."""
    own = {name: value for name, value in os.environ.items() if name != NAME}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**own, "OMP_DISPLAY_ENV": "TRUE", **variables}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if NAME in line][:1]
    return line.partition("=")[2].strip(" '\"")


@pytest.mark.parametrize("module", ENTRANCES)
def test_whoever_imports_a_part_of_the_project_first_has_threads_that_sleep(module: str) -> None:
    assert settings_of(f"import {module}, torch") == "PASSIVE"


def test_what_the_user_sets_stays() -> None:
    assert settings_of("import orchestrator, torch", **{NAME: "ACTIVE"}) == "ACTIVE"


def test_rays_workers_have_it_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME)

    def environment() -> list[str]:
        """The variables that this process was started with."""
        return Path("/proc/self/environ").read_text().split("\0")

    with own_ray():
        started_with = ray.get(ray.remote(environment).remote())
    assert f"{NAME}=PASSIVE" in started_with
