"""The rows of jobs/decode.py from file to output, each answered with the same made-up response."""

import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.batch.decode_output import DecodeOutput, DecodeSummary
from jobs.batch.decode_rows import RowWriter, find_shards, prompts
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import load_chat
from orchestrator.data.rows import file_stem
from orchestrator.decoding.prompts import PromptReader
from orchestrator.evaluation.flops import Sizes
from orchestrator.records import Cost, Response

NEW_TOKENS = 4


@dataclass(frozen=True)
class Written:
    """What came of a file: how many rows it has, which were answered, which refused."""

    rows: int
    answered: list[int]
    rejects: list[int]
    summary: DecodeSummary | None


def decode_rows(
    policy: str, source: Path, out: Path, most: int | None = None, known: Container[int] = ()
) -> Written:
    """Answers the prompts of a file; of ``most``, that many alone, as a run that is killed.

    Raises:
        ConfigError: as the job does, nothing being left of the output.
    """
    stem = file_stem(source).removesuffix(".txt")
    reader, output = PromptReader(policy, None, 0, NEW_TOKENS, stem), DecodeOutput(out)
    assert output.begin({}, force=False) is None
    try:
        file = find_shards(str(source), reader, output)
    except ConfigError:
        output.discard_if_empty()
        raise
    chat = load_chat(policy)
    writer = RowWriter(output, str(source), chat, Sizes(1.0, 0.0), shard_rows=6)
    for number, (row, problem) in enumerate(prompts(file, reader, output.finished_rows(), writer)):
        if number == most:
            writer.flush()
            return Written(file.rows, [], [], None)
        response = Response(problem.prompt_id, (5, 6), "end", None, (), Cost())
        writer.answer(row, response)
    writer.close()
    assert output.count_rows() == file.rows
    summary = output.finish({}, 1.0)
    refused = pq.read_table(output.rejects) if output.rejects.exists() else None
    return Written(
        file.rows,
        [row["row"] for row in read_out(out)],
        [] if refused is None else refused["row"].to_pylist(),
        summary,
    )


def read_out(out: Path) -> list[dict[str, Any]]:
    """The rows of an output of jobs/decode.py."""
    if out.suffix == ".jsonl":
        return [json.loads(line) for line in out.read_text().splitlines()]
    if out.suffix == ".parquet":
        return [{"row": n} for n in pq.read_table(out, columns=["row"])["row"].to_pylist()]
    shards = sorted((out / "responses").glob("shard-*"))
    tables = [pq.read_table(shard, columns=["row"]) for shard in shards]
    return [{"row": n} for table in tables for n in table["row"].to_pylist()]
