"""What jobs/decode.py writes: parts as responses come, rejects, and whose they are.

A folder holds `responses/part-*.parquet`, `rejects.parquet` and `decode.json` (options, summary).
A file is made of such a folder beside it, which then goes. A part is there wholly or not at all,
and the rows that are in one, or refused in one, are done.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.steps.responses import COSTS
from jobs.steps.score_output import partial_of, write_mark, write_table
from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA as REJECTS

RESPONSES, REFUSED, MARK = "responses", ".rejects", "decode.json"
FILES = (".parquet", ".jsonl")
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

    def begin(self, identity: dict[str, Any], force: bool) -> dict[str, Any] | None:
        """The summary where all is done already; else makes the folder ready for parts.

        Raises:
            ConfigError: what is there was made with other options, or is something else.
        """
        if force:
            self._forget()
        mark = json.loads(self.mark.read_text()) if self.mark.is_file() else None
        if mark is None:
            for place in (self.responses, self.rejects):
                if place.exists():
                    raise ConfigError(
                        f"--out = {str(self.file or self.folder)!r}: {place} is there and was not"
                        " made by this command; valid: another place, or --force to write over it"
                    )
        elif mark["identity"] != identity:
            raise ConfigError(self._other(mark["identity"], identity))
        elif mark["summary"] is not None and self.responses.exists():
            self._clear()
            return dict(mark["summary"])
        for folder in (self.folder / RESPONSES, self.folder / REFUSED):
            folder.mkdir(parents=True, exist_ok=True)
        for torn in self.folder.glob("*/.*.partial"):
            torn.unlink(missing_ok=True)
        write_mark(self.mark, {"identity": identity, "summary": None})
        return None

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
        reasons: Counter[str] = Counter()
        partial = partial_of(self.rejects)
        with pq.ParquetWriter(partial, REJECTS) as writer:
            for piece in sorted((self.folder / REFUSED).glob(_PARTS)):
                table = pq.read_table(piece)
                reasons.update(table["reason"].to_pylist())
                writer.write_table(table)
        os.replace(partial, self.rejects)
        return dict(reasons.most_common())

    def _join(self, file: Path) -> None:
        """One file of all parts, in the order of the rows."""
        partial = partial_of(file)
        tables = self._in_order()
        if file.suffix == ".jsonl":
            with open(partial, "w") as lines:
                for table in tables:
                    lines.writelines(
                        json.dumps(row, default=str) + "\n" for row in table.to_pylist()
                    )
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
