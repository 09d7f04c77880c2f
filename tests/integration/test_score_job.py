"""jobs/score.py with real Ray: bad rows, a kill in the middle, and the memory of the driver."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, own_cluster
from rich.console import Console

from actors.prefix_scores import ShardCounts
from jobs.batch.score_output import ScoreOutput
from jobs.batch.score_pipeline import ScoringPipelineConfig, run_shards
from jobs.benchmarks.measure import begin_peak, peak_mib
from jobs.sweep import cluster
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.shards import split_into_shards
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.spec import ScorerSpec

SECONDS = 1_100
TOLERANCE = 1e-4
ROWS, PART_ROWS = 600, 8
TEXTS = ("thank you for writing .", "read the manual .", "no .")
BAD: dict[int, tuple[Any, str]] = {
    2: ({"prompt": "order 1 ."}, "missing field: response"),
    5: ({"prompt": 7, "response": "x"}, "wrong type: prompt is not a list of messages"),
    9: ("{no json", "not JSON"),
    300: ({"prompt": "order", "response": " "}, "empty response: response"),
    599: (
        {"prompt": "order", "response": "the " * 300},
        "too long for the reward model: prompt and response, with closing tokens and step tags,"
        " take more than 256 tokens",
    ),
}
MIB_ALLOWED = 6.0  # of the driver, for four times as many rows


def row(number: int) -> dict[str, Any]:
    return {"prompt": f"order {number % 10} .", "response": TEXTS[number % 3], "id": number}


def rows_file(place: Path) -> str:
    lines = [BAD[n][0] if n in BAD else row(n) for n in range(1, ROWS + 1)]
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    place.write_bytes(gzip.compress(text.encode()))
    return str(place)


def command(source: str, output: Path, reward: str, *more: str) -> list[str]:
    job = str(ROOT / "jobs" / "score.py")
    return [
        sys.executable, job, "--input", source, "--output", str(output), "--reward", reward,
        "--prefixes", "1,3", "--shard-rows", str(PART_ROWS), "--actors", "1", *more,
    ]  # fmt: skip


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=SECONDS, env=own_cluster()
    )


def killed_in_the_middle(arguments: list[str], parts: Path) -> None:
    """Ends the driver when some parts are written, and not all."""
    driver = subprocess.Popen(
        arguments, env=own_cluster(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SECONDS
    while len(list(parts.glob("shard-*"))) < 5:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait(timeout=600) == -signal.SIGKILL


def settled(parts: Path) -> dict[str, int]:
    """The parts that are there and when each was written; the last workers may take a moment."""
    while True:
        found = {path.name: path.stat().st_mtime_ns for path in parts.glob("shard-*")}
        time.sleep(3)
        if found == {path.name: path.stat().st_mtime_ns for path in parts.glob("shard-*")}:
            return found


@pytest.mark.slow
def test_a_killed_job_goes_on_and_every_row_is_scored_or_refused(
    word_reward: str, tmp_path: Path
) -> None:
    source, output = rows_file(tmp_path / "rows.jsonl.gz"), tmp_path / "out"
    killed_in_the_middle(command(source, output, word_reward), output / "scores")
    kept = settled(output / "scores")
    assert 5 <= len(kept) < ROWS / PART_ROWS

    done = run(source, output, word_reward)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(kept)} of {ROWS // PART_ROWS} shards are done" in done.stdout
    assert "595 rows scored, 5 rejected" in done.stdout.replace("\n", " ")
    now = settled(output / "scores")
    assert len(now) == ROWS // PART_ROWS
    assert {name: now[name] for name in kept} == kept, "what was written is not written again"
    assert sorted(path.name for path in output.iterdir()) == [
        "rejects.parquet", "score.json", "scores",
    ]  # fmt: skip

    rejects = pq.read_table(output / "rejects.parquet").to_pylist()
    assert {r["row"]: r["reason"] for r in rejects} == {n: why for n, (_, why) in BAD.items()}
    table = pq.read_table(output / "scores").to_pylist()
    assert [r["row"] for r in table] == [n for n in range(1, ROWS + 1) if n not in BAD]
    scorer = load_scorer(ScorerSpec(word_reward), "closed")
    for found in table[:30]:
        assert {name: found[name] for name in row(1)} == row(found["row"])
        prompt = scorer.chat.prompt_ids([{"role": "user", "content": found["prompt"]}])
        ids = scorer.chat.response_ids(found["response"])
        (expected,) = scorer.prefix_scores([prompt], [ids], [[1, 3, len(ids)]])
        assert found["cuts"] == [t for t in (1, min(3, len(ids)))]
        assert found["prefix_scores"] == pytest.approx(expected[:2], abs=TOLERANCE)
        assert found["score"] == pytest.approx(expected[2], abs=TOLERANCE)

    again = run(source, output, word_reward)
    assert again.returncode == 0 and again.stdout.startswith("finished before: 595 rows scored")
    other = run(source, output, word_reward, "--position", "open")
    assert other.returncode == 2
    assert "--position = 'closed' (now 'open')" in other.stderr.replace("\n", " ")
    assert settled(output / "scores") == now


@pytest.mark.slow
def test_a_score_that_is_no_number_ends_the_job_with_its_rows(
    broken_reward: str, tmp_path: Path
) -> None:
    source = rows_file(tmp_path / "rows.jsonl.gz")
    done = run(source, tmp_path / "out.parquet", broken_reward)
    assert done.returncode == 1
    said = done.stderr.replace("\n", " ")
    assert re.search(r"rewards of \d+ rows in shard \d+ are not finite: rows \[", said)
    assert "Traceback" not in done.stderr


def driver_memory(checkpoint: str, rows: int, folder: Path) -> tuple[float, float]:
    """Rise of a driver's memory over its start, and from a quarter of its parts on (MiB)."""
    folder.mkdir()
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row(n)) + "\n" for n in range(rows)))
    cluster.connect(Console(quiet=True), dashboard=False)
    start = begin_peak()
    reader = RowReader(ScorerSpec(checkpoint), "open", "response", Prefixes.parse("1,3"), 0, "rows")
    file = split_into_shards(str(source), 128, reader.check, folder)
    output = ScoreOutput(folder / "out")
    output.begin({}, force=False)
    peaks: list[float] = []
    quarter: list[float] = []
    seen: list[ShardCounts] = []

    def on_shard(counts: ShardCounts) -> None:
        seen.append(counts)
        if not quarter and len(seen) >= len(file.shards) / 4:
            peaks.append(peak_mib())
            quarter.append(begin_peak() or 0.0)

    run_shards(
        ScoringPipelineConfig(file, reader, str(output.path), 1, 1, 32, "cpu"),
        file.shards,
        on_shard,
    )
    assert sum(counts["rows"] for counts in seen) == rows
    assert start is not None
    return max(*peaks, peak_mib()) - start, peak_mib() - quarter[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_the_drivers_memory_does_not_grow_with_the_rows(word_reward: str, tmp_path: Path) -> None:
    found = {}
    for rows in (2_000, 8_000):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            work = process.submit(driver_memory, word_reward, rows, tmp_path / str(rows))
            found[rows] = work.result(timeout=SECONDS)
    print(found)
    assert found[8_000][1] < MIB_ALLOWED
    assert found[8_000][0] - found[2_000][0] < MIB_ALLOWED
