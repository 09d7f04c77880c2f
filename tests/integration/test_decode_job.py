"""jobs/decode.py with real Ray: bad prompts, a kill in the middle, options that cannot be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import NAN_WORD, ROOT, own_cluster

from orchestrator.decoding.decoder import Decoder
from orchestrator.search.problem import NOT_A_NUMBER

SECONDS = 1_100
PROMPTS = 60
NEW_TOKENS = 12
BAD: dict[int, tuple[Any, str]] = {
    2: ({"prompt": " "}, "empty prompt"),
    5: ({"prompt": 7}, "wrong type: prompt is not a list of messages"),
    9: (
        {"prompt": "order " * 300},
        f"prompt too long for the policy: more than {256 - NEW_TOKENS} tokens; its context is 256,"
        f" of which {NEW_TOKENS} are reserved for the response",
    ),
    11: ({"prompt": f"order {NAN_WORD} 1 ."}, NOT_A_NUMBER),
    12: ({"text": "order"}, "missing field: prompt"),
}


def row(number: int) -> dict[str, Any]:
    return {"prompt": f"order {number % 10} .", "prompt_id": f"p{number}", "kept": number}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [BAD[n][0] if n in BAD else row(n) for n in range(1, PROMPTS + 1)]
    place.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(place)


def command(source: str, out: Path, policy: str, *more: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "jobs" / "decode.py"), "--policy", policy, "--prompts", source,
        "--out", str(out), "--max-new-tokens", str(NEW_TOKENS), "--dtype", "float64",
        "--max-concurrent", "2", "--shard-rows", "4", "--threads", "1", *more,
    ]  # fmt: skip


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=SECONDS, env=own_cluster()
    )


def killed_in_the_middle(arguments: list[str], parts: Path) -> None:
    """Ends the driver when some parts are written, and not all."""
    driver = subprocess.Popen(
        arguments, env=own_cluster(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SECONDS
    while len(list(parts.glob("shard-*"))) < 3:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait(timeout=600) == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_job_goes_on_and_every_prompt_is_answered_or_refused_once(
    source: str, word_policy: str, nan_reward: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    search = ("--reward", nan_reward, "--method", "cbs", "beams=2", "candidates=2", "chunk=4")
    arguments = command(source, out, word_policy, *search)
    folder = tmp_path / "out.jsonl.shards" / "responses"
    killed_in_the_middle(arguments, folder)
    kept = {number for file in folder.glob("shard-*") for number in rows_of(file)}
    assert 3 <= len(kept) < PROMPTS - len(BAD)

    other = run([*arguments, "method.chunk=5"])
    assert other.returncode == 2
    assert "method.chunk = 4 (now 5)" in other.stderr and "--force" in other.stderr
    done = run(arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"of {PROMPTS} prompts are done" in done.stdout
    summary = json.loads(done.stdout.splitlines()[-1])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "out.decode.json", "out.jsonl", "out.rejects.parquet",
    ]  # fmt: skip

    found = [json.loads(line) for line in out.read_text().splitlines()]
    numbers = [n for n in range(1, PROMPTS + 1) if n not in BAD]
    failed = {
        r["row"]: r["reason"] for r in pq.read_table(tmp_path / "out.rejects.parquet").to_pylist()
    }
    # What the policy itself writes may hold the word too.
    own = {n: reason for n, reason in failed.items() if n in BAD}
    assert own == {n: reason for n, (_, reason) in BAD.items()}
    assert {reason for n, reason in failed.items() if n not in BAD} <= {NOT_A_NUMBER}
    assert [r["row"] for r in found] == [n for n in numbers if n not in failed]
    assert summary["answered"] == len(found) > PROMPTS / 10
    assert sum(summary["reasons"].values()) == len(failed)

    decoder = Decoder(word_policy, nan_reward, dtype="float64")
    some = found[:6]
    for one in some:
        assert {name: one[name] for name in row(1)} == row(one["row"])
        assert len(one["step_scores"]) >= 1 and one["score"] == one["step_scores"][-1]
        assert one["policy_tokens_computed"] > 0 and one["stop"] in ("end", "length")
    answers = decoder.decode(
        [one["prompt"] for one in some], "cbs", beams=2, candidates=2, chunk=4,
        max_new_tokens=NEW_TOKENS, prompt_ids=[one["prompt_id"] for one in some],
    )  # fmt: skip
    assert [(a.text, list(a.token_ids)) for a in answers] == [
        (one["response"], one["token_ids"]) for one in some
    ]
    again = run(arguments)
    assert again.returncode == 0 and again.stdout.startswith("finished before:")


def rows_of(file: Path) -> list[int]:
    return list(pq.read_table(file, columns=["row"])["row"].to_pylist())


def test_lines_of_text_are_answered_without_a_reward_model(
    word_policy: str, tmp_path: Path
) -> None:
    source = tmp_path / "lines.txt"
    source.write_bytes(b"order 1 .\n\n\xff\xfe order\norder 3 .\n")
    done = run(command(str(source), tmp_path / "out", word_policy, "--method", "greedy"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restart will fail" not in done.stderr and "Traceback" not in done.stderr
    table = pq.read_table(tmp_path / "out" / "responses")  # of two parts on a very slow machine
    assert table.select(["row", "prompt_id", "prompt", "score"]).sort_by("row").to_pylist() == [
        {"row": 1, "prompt_id": "lines-1", "prompt": "order 1 .", "score": None},
        {"row": 4, "prompt_id": "lines-4", "prompt": "order 3 .", "score": None},
    ]
    (reject,) = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert (reject["source"], reject["row"], reject["reason"]) == (str(source), 3, "not UTF-8")
