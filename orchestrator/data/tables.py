"""Reading and writing prompts, demonstrations and preference pairs as Parquet, in order."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.records import Demonstration, PreferencePair, Prompt

ROWS_PER_GROUP = 256  # one read task of Ray Data
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_PROMPT = [("prompt_id", pa.string()), ("messages", _MESSAGES), ("facts", pa.string())]
PROMPTS = pa.schema(_PROMPT)
DEMONSTRATIONS = pa.schema([*_PROMPT, ("response", pa.string())])
PAIRS = pa.schema(
    [("pair_id", pa.string()), *_PROMPT, ("chosen", pa.string()), ("rejected", pa.string())]
)


def write_prompts(file: Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts; facts are stored as JSON text."""
    _write(file, [_prompt_row(prompt) for prompt in prompts], PROMPTS)


def write_demonstrations(file: Path, rows: Sequence[Demonstration]) -> None:
    """Write demonstrations."""
    content = [{**_prompt_row(row.prompt), "response": row.response} for row in rows]
    _write(file, content, DEMONSTRATIONS)


def write_pairs(file: Path, pairs: Sequence[PreferencePair]) -> None:
    """Write preference pairs."""
    content = [
        {
            "pair_id": pair.pair_id,
            **_prompt_row(pair.prompt),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        for pair in pairs
    ]
    _write(file, content, PAIRS)


def read_prompts(file: Path) -> list[Prompt]:
    """Read prompts, or the prompts of demonstrations or pairs."""
    return [_prompt(row) for row in pq.read_table(file).to_pylist()]


def read_demonstrations(file: Path) -> list[Demonstration]:
    """Read demonstrations."""
    return [Demonstration(_prompt(row), row["response"]) for row in pq.read_table(file).to_pylist()]


def read_pairs_table(file: Path) -> list[PreferencePair]:
    """Read preference pairs."""
    return list(stream_pairs(file))


def count_rows(file: Path) -> int:
    """Return the number of rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(file).num_rows)


def stream_pairs(file: Path) -> Iterator[PreferencePair]:
    """Yield preference pairs with one batch of rows in memory."""
    for batch in pq.ParquetFile(file).iter_batches(ROWS_PER_GROUP):
        for row in batch.to_pylist():
            yield PreferencePair(row["pair_id"], _prompt(row), row["chosen"], row["rejected"])


def _write(file: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, file, row_group_size=ROWS_PER_GROUP)


def _prompt_row(prompt: Prompt) -> dict[str, object]:
    facts = json.dumps(prompt.facts, sort_keys=True)
    return {"prompt_id": prompt.prompt_id, "messages": list(prompt.messages), "facts": facts}


def _prompt(row: dict[str, Any]) -> Prompt:
    return Prompt(row["prompt_id"], tuple(row["messages"]), json.loads(row["facts"]))
