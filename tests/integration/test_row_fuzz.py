"""Fuzzed files through the readers of all jobs: rejects or one sentence, and no row is lost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support.row_fuzzer import ROWS, RowFuzzer
from support.written_rows import Written, decode_rows

from jobs.batch.score_options import ScoreOptions
from jobs.batch.score_output import ScoreOutput
from jobs.batch.score_pipeline import ShardReader, ShardWriter
from orchestrator.config.load import ConfigError
from orchestrator.data.files import BadFile
from orchestrator.data.pairs import read_pairs
from orchestrator.data.questions import read_questions
from orchestrator.data.transcripts import read_hh

FILES = 500
SECONDS = 5.0  # of a file with any reader: the bar is that for a row
ACCEPTED = 0.05  # of the rows, at least: a fuzzer whose rows are all refused shows nothing
OUTS = ("out", "out.jsonl", "out.parquet")


class Tally:
    """What came of the files, by reader."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.accepted: dict[str, int] = {}
        self.damaged: dict[str, int] = {}
        self.slowest = 0.0

    def add(self, reader: str, rows: int, accepted: int) -> None:
        for counts, more in ((self.rows, rows), (self.accepted, accepted)):
            counts[reader] = counts.get(reader, 0) + more


@contextmanager
def one_sentence(tally: Tally, reader: str, place: Path) -> Iterator[None]:
    """A file may be refused as a whole, at once, with its name, on one line."""
    started = time.monotonic()
    try:
        yield
    except (BadFile, ConfigError) as error:
        said = str(error)
        assert place.name in said and "\n" not in said and len(said) < 3_000
        tally.damaged[reader] = tally.damaged.get(reader, 0) + 1
    took = time.monotonic() - started
    tally.slowest = max(tally.slowest, took)
    assert took < SECONDS, f"{reader}: {place.name} took {took:.1f} s"


def check_once(numbers: list[int], refused: list[int], several: bool) -> int:
    """Every row is accepted or refused, once; how many rows there are."""
    seen = set(numbers) | set(refused)
    if not several:  # of ranked completions each pair is accepted or refused
        assert len(numbers) + len(refused) == len(seen)
    return len(seen)


def score(options: dict[str, Any], place: Path, folder: Path) -> tuple[int, int]:
    """Reads a file as jobs/score.py does; how many rows there are, and are accepted."""
    from jobs.batch.score import find_shards

    chosen = ScoreOptions(**{**options, "input": str(place)})
    reader, output = chosen.row_reader(), ScoreOutput(folder)
    assert output.begin({}, force=False) is None
    file = find_shards(chosen, reader, output)
    rows = accepted = refused = 0
    for shard in file.shards:
        found = ShardReader(file, reader)(asdict(shard))
        ShardWriter(str(folder))(found)
        accepted, refused = accepted + found["rows"], refused + found["rejected"]
        rows += found["rows"] + found["rejected"]
    if reader.rows != "ranked":
        assert rows == file.rows
    return file.rows, accepted


@pytest.mark.slow
def test_fuzzed_rows_are_accepted_or_refused_and_never_lost(
    word_policy: str, word_reward: str, tmp_path: Path
) -> None:
    fuzzer, tally, made = RowFuzzer(16), Tally(), 0
    options = {
        "output": "out", "reward": word_reward, "prefixes": "whole", "branch_memory_mib": 256,
        "engine": "transformers", "seed": 0, "actors": 1, "threads": 1, "batch_size": 4,
        "shard_rows": 7, "device": "cpu", "force": False,
    }  # fmt: skip
    readers: dict[str, Callable[[Path], Any]] = {
        "pairs": read_pairs, "hh": read_hh, "questions": read_questions,
    }  # fmt: skip
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        place, rows = fuzzer.file(folder, number)
        made += rows
        for name, read in readers.items():
            with one_sentence(tally, name, place):
                parsed, rejects = read(place)
                numbers = [int(p.pair_id.split(":")[0].rsplit("-", 1)[1]) for p in parsed] if (
                    name != "questions") else []  # fmt: skip
                refused = [reject.row for reject in rejects]
                several = any(":" in getattr(p, "pair_id", "") for p in parsed) or (
                    len(set(refused)) < len(refused)
                )
                if name == "questions":
                    assert len(parsed) + len(set(refused)) == len(parsed) + len(refused)
                else:
                    check_once(numbers, refused, several)
                tally.add(name, len(parsed) + len(rejects), len(parsed))
        with one_sentence(tally, "score", place):
            tally.add("score", *score(options, place, folder / "scored"))
        with one_sentence(tally, "decode", place):
            written: Written = decode_rows(word_policy, place, folder / OUTS[number % 3])
            assert written.rows == len(written.answered) + len(written.rejects)
            assert check_once(written.answered, written.rejects, False) == written.rows
            tally.add("decode", written.rows, len(written.answered))
    print(vars(tally))
    assert made >= 9_000 and ROWS * FILES == 10_000
    for name in ("pairs", "score", "decode"):
        assert tally.accepted[name] > ACCEPTED * tally.rows[name]
    assert all(tally.damaged[name] for name in (*readers, "score", "decode"))
