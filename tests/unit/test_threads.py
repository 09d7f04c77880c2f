"""How threads wait stands before torch is loaded, in every kind of process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from conftest import ROOT, own_ray

from orchestrator import THREADS

POLICY, COUNT = THREADS
ENTRANCES = (
    "orchestrator.decoding.decoder", "actors.training", "actors.search", "jobs.sweep.training",
)  # fmt: skip


def settings_of(program: str, **variables: str) -> dict[str, str]:
    """What OpenMP read, in its own words, in a process that runs ``program``."""
    own = {name: value for name, value in os.environ.items() if name not in THREADS}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**own, "OMP_DISPLAY_ENV": "VERBOSE", **variables}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    lines = [line.partition("=") for line in done.stderr.splitlines()]
    read = {name.split()[-1]: value.strip(" '\"") for name, _, value in lines if name.strip()}
    return {name: read[name] for name in THREADS if name in read}


@pytest.mark.parametrize(
    "module", [ENTRANCES[0], *(pytest.param(m, marks=pytest.mark.slow) for m in ENTRANCES[1:])]
)
def test_whoever_imports_a_part_of_the_project_first_has_threads_that_soon_sleep(
    module: str,
) -> None:
    assert settings_of(f"import {module}, torch") == THREADS


def test_what_the_user_sets_stays() -> None:
    read = settings_of("import orchestrator, torch", **{POLICY: "ACTIVE"})
    assert read[POLICY] == "ACTIVE" and read[COUNT] != THREADS[COUNT]
    assert settings_of("import orchestrator, torch", **{COUNT: "7"})[COUNT] == "7"


def test_rays_workers_have_it_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COUNT, "1234")
    monkeypatch.setenv(POLICY, "ACTIVE")

    def environment() -> list[str]:
        """The variables that this process was started with."""
        return Path("/proc/self/environ").read_text().split("\0")

    with own_ray():
        started_with = ray.get(ray.remote(environment).remote())
    assert f"{COUNT}=1234" in started_with and f"{POLICY}=ACTIVE" in started_with
