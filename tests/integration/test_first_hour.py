"""The commands of docs/first_hour.md, in its order, on the models of the smallest sweep."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMOKE_SECONDS, own_cluster

pytestmark = [pytest.mark.medium, pytest.mark.timeout(1_200)]

PAGE = (ROOT / "docs" / "first_hour.md").read_text()
# The set-up, which these tests run in, the main sweep, and a server.
NOT_RUN = ("python3 bootstrap.py ", ". .venv/bin/activate", "mlflow ui ")
FINISHED = "prm sweep --config configs/smoke.yaml"  # finds all stages done here
PRM = f'prm() {{ "{sys.executable}" -m jobs.cli "$@"; }}\n'


def commands() -> list[str]:
    """The commands of the page, each with its continuation lines."""
    lines = [line[4:] for line in PAGE.splitlines() if line.startswith("    ")]
    return re.findall(r"(?:[^\n]*\\\n)*[^\n]+", "\n".join(lines))


def test_the_page_shows_every_job_that_a_newcomer_needs() -> None:
    shown = {match for line in commands() for match in re.findall(r"^prm (\w+)", line)}
    assert shown == {"sweep", "report", "decode", "score", "train"}
    assert sum(line.startswith(NOT_RUN) for line in commands()) == 4


@pytest.fixture(scope="module")
def folder(smoke: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder after the page's first sweep."""
    folder = tmp_path_factory.mktemp("first_hour")
    (folder / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(smoke[0], folder / "runs" / "smoke")
    pair = {"prompt": "my kettle leaks .", "chosen": "first dry the lid .", "rejected": "no ."}
    (folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    return folder


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["bash", "-euc", PRM + command], cwd=folder, timeout=SMOKE_SECONDS,
        env={**own_cluster(), "PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_every_command_works(folder: Path) -> None:
    for command in commands():
        if command.startswith(NOT_RUN):
            continue
        fails = "# error: " in command
        trains = re.match(r"prm (sweep|train) ", command) and command != FINISHED
        if trains and "--dry-run" not in command:
            command += " --dry-run"
        done = run(command, folder)
        assert done.returncode == (2 if fails else 0), f"{command}\n{done.stdout}\n{done.stderr}"
        if fails:
            assert "search.cbs.beam = 4: " in done.stderr and "beams" in done.stderr
    (answer,) = map(json.loads, (folder / "decoded.jsonl").read_text().splitlines())
    assert answer["stop"] in ("end", "length") and answer["step_scores"]
    (scores,) = pq.read_table(folder / "scored.parquet").to_pylist()
    assert scores["cuts"][:2] == [4, 8] and len(scores["cuts"]) == len(scores["prefix_scores"])
