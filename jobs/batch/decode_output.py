"""What jobs/decode.py writes: parts as responses come, rejects, and whose they are.

A folder holds `responses/part-*.parquet`, `rejects.parquet` and `decode.json` (options, summary).
A file is made of such a folder beside it, which then goes. A part is there wholly or not at all,
and the rows that are in one, or refused in one, are done.
"""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.batch.score_output import (
    join_rejects,
    make_folders,
    partial_of,
    read_mark,
    unmake,
    write_mark,
    write_table,
)
from jobs.sweep.responses import COSTS
from orchestrator.config.load import ConfigError
from orchestrator.data.columns import OWN, own_row
from orchestrator.data.rejects import SCHEMA as REJECTS
from orchestrator.data.rows import Row, plain_rows

RESPONSES, REFUSED, MARK = "responses", ".rejects", "decode.json"
LINES = ".jsonl"
FILES = (".parquet", LINES)
_PARTS = "part-*.parquet"


class DecodeOutput:
    """The output of one decoding.

    Args:
        out: a folder, or a file that ends with .parquet or .jsonl.
    """

    def __init__(self, out: Path) -> None:
        file = out if out.suffix in FILES else None
        self.file = file
        self.folder = out.with_name(f"{out.name}.parts") if file else out
        self.responses = file or out / RESPONSES
        self.rejects = (
            out.with_name(f"{out.stem}.rejects.parquet") if file else out / "rejects.parquet"
        )
        self.mark = out.with_name(f"{out.stem}.{MARK}") if file else out / MARK
        self._made: list[Path] = []

    @property
    def writes_json(self) -> bool:
        """Whether it is a file of JSON lines, whose values each have a type of their own."""
        return self.file is not None and self.file.suffix == LINES

    def begin(self, identity: dict[str, Any], force: bool) -> dict[str, Any] | None:
        """The summary where all is done already; else makes the folder ready for parts.

        Raises:
            ConfigError: what is there was made with other options, or is something else.
        """
        shown = f"--out = {str(self.file or self.folder)!r}"
        for place in (self.rejects, self.mark):
            if place.is_dir():
                raise ConfigError(f"{shown}: {place} is a folder; valid: another place")
        if force:
            self._forget()
        mark = read_mark(self.mark)
        if mark is None:
            for place in (self.responses, self.rejects, self.mark):
                if place.exists():
                    raise ConfigError(
                        f"{shown}: {place} is there and was not made by this command; valid:"
                        " another place, or --force to write over it"
                    )
        elif mark["identity"] != identity:
            raise ConfigError(self._other(mark["identity"], identity))
        elif mark["summary"] is not None and self.responses.exists():
            self._clear()
            return dict(mark["summary"])
        self._made = make_folders(self.folder, RESPONSES, REFUSED)
        for torn in self.folder.glob("*/.*.partial"):
            torn.unlink(missing_ok=True)
        write_mark(self.mark, {"identity": identity, "summary": None})
        return None

    def undo(self) -> None:
        """Deletes what ``begin`` made, where no part was written since."""
        if not any(self.folder.glob(f"*/{_PARTS}")):
            self._forget()
            unmake(self._made)

    @property
    def has_parts(self) -> bool:
        """Whether there is any part of responses."""
        return any((self.folder / RESPONSES).glob(_PARTS))

    def done(self) -> set[int]:
        """Numbers of the rows that are answered or refused."""
        found: set[int] = set()
        for kind in (RESPONSES, REFUSED):
            for file in (self.folder / kind).glob(_PARTS):
                found.update(pq.read_table(file, columns=["row"])["row"].to_pylist())
        return found

    def rows(self) -> int:
        """How many rows are answered or refused, by the parts' own counts."""
        return sum(pq.read_metadata(part).num_rows for part in self.folder.glob(f"*/{_PARTS}"))

    def write(self, table: pa.Table | None, rejects: Sequence[dict[str, Any]]) -> None:
        """One more part: responses, and rows that were refused."""
        numbers = [int(f.stem.split("-")[1]) for f in self.folder.glob(f"*/{_PARTS}")]
        name = f"part-{max(numbers, default=-1) + 1:06d}.parquet"
        if rejects:
            refused = pa.Table.from_pylist(list(rejects), schema=REJECTS)
            write_table(self.folder / REFUSED / name, refused)
        if table is not None:
            write_table(self.folder / RESPONSES / name, table.sort_by("row"))

    def finish(self, identity: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Joins rejects, and parts where a file is wanted, and marks the output as done."""
        summary = {**self._figures(), "reasons": self._join_rejects(), "seconds": round(seconds, 3)}
        if self.file is not None:
            self._join(self.file)
        write_mark(self.mark, {"identity": identity, "summary": summary})
        self._clear()
        return summary

    def _figures(self) -> dict[str, Any]:
        """Sums and means over all responses."""
        costs: Counter[str] = Counter()
        answered = ended = tokens = scored = 0
        total = 0.0
        for file in (self.folder / RESPONSES).glob(_PARTS):
            table = pq.read_table(file, columns=["stop", "score", "token_ids", *COSTS])
            answered += table.num_rows
            ended += table["stop"].to_pylist().count("end")
            tokens += pc.sum(pc.list_value_length(table["token_ids"])).as_py() or 0
            scored += table.num_rows - table["score"].null_count
            total += pc.sum(table["score"]).as_py() or 0.0
            costs.update({name: pc.sum(table[name]).as_py() or 0 for name in COSTS})
        return {
            "answered": answered,
            "ended": ended,
            "response_tokens": tokens,
            "mean_score": total / scored if scored else None,
            "cost": dict(costs),
        }

    def _join_rejects(self) -> dict[str, int]:
        """How many rows were refused for each reason, most frequent first."""
        return join_rejects(sorted((self.folder / REFUSED).glob(_PARTS)), self.rejects)

    def _join(self, file: Path) -> None:
        """One file of all parts, in the order of the rows."""
        partial = partial_of(file)
        tables = self._in_order()
        if self.writes_json:
            with open(partial, "w", encoding="utf-8") as lines:
                for table in tables:
                    lines.writelines(_line(row) for row in plain_rows(table))
        else:
            first = next(tables)
            with pq.ParquetWriter(partial, first.schema) as writer:
                writer.write_table(first)
                for table in tables:
                    writer.write_table(table)
        os.replace(partial, file)

    def _in_order(self) -> Iterator[pa.Table]:
        """All rows by their number; in memory are the parts whose ranges of numbers overlap."""
        firsts = sorted(
            (pc.min(pq.read_table(file, columns=["row"])["row"]).as_py() or 0, file)
            for file in (self.folder / RESPONSES).glob(_PARTS)
        )
        held: pa.Table | None = None
        for i, (_, file) in enumerate(firsts):
            table = pq.read_table(file)
            held = table if held is None else pa.concat_tables([held, table])
            if i + 1 < len(firsts):
                ready = pc.less(held["row"], firsts[i + 1][0])
                yield held.filter(ready).sort_by("row")
                held = held.filter(pc.invert(ready))
        if held is not None:
            yield held.sort_by("row")

    def _other(self, there: dict[str, Any], wanted: dict[str, Any]) -> str:
        names = [n for n in {**there, **wanted} if there.get(n) != wanted.get(n)]
        shown = ", ".join(f"{name} (there: {there.get(name)!r})" for name in names)
        return (
            f"--out = {str(self.file or self.folder)!r}: holds responses made with other options:"
            f" {shown}; valid: those options, another place, or --force to answer all anew"
        )

    def _clear(self) -> None:
        """Deletes what a finished output needs no longer."""
        shutil.rmtree(self.folder if self.file else self.folder / REFUSED, ignore_errors=True)
        for copy in self.folder.glob("unpacked.*"):
            copy.unlink(missing_ok=True)

    def _forget(self) -> None:
        """Deletes what this command made, or would write over, and nothing else."""
        for folder in (self.folder / RESPONSES, self.folder / REFUSED):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.file, self.rejects, self.mark, *self.folder.glob("unpacked.*")):
            if file is not None:
                file.unlink(missing_ok=True)


def _line(row: Row) -> str:
    """A response as a line of JSON: the prompt's own columns have the values that they had."""
    own = own_row(row.pop(OWN)) if OWN in row else {}
    named = own.pop("prompt_id", None)
    first = {"row": row.pop("row"), "prompt_id": row.pop("prompt_id")}
    if named is not None:
        first["prompt_id"] = named
    return json.dumps(_strict({**first, **own, **row}), default=str, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """A value without NaN and infinities, which JSON does not have: null."""
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
