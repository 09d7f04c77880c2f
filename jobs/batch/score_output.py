"""What jobs/score.py writes: numbered parts, rejects, and the mark that says whose they are.

A folder holds `scores/part-*.parquet`, `rejects.parquet` and `score.json`. A Parquet file is made
of such a folder beside it, which then goes. A part is there wholly or not at all.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA as REJECTS

FILES = (".parquet",)
MARK, SCORES, REFUSED = "score.json", "scores", ".rejects"
UNPACKED = "unpacked.*"
PART_KEY, MARK_KEY = b"prm_orchestrator.part", b"prm_orchestrator.score"  # in Parquet's metadata
Counts = dict[str, int]  # part, rows, rejected, tokens


class ScoreOutput:
    """The output of one scoring.

    Args:
        output: a folder, or a file that ends with .parquet.
    """

    def __init__(self, output: Path) -> None:
        self._file = output if output.suffix in FILES else None
        self.folder = output.with_name(f"{output.name}.parts") if self._file else output
        self.scores = self._file or output / SCORES
        self.rejects = (
            output.with_name(f"{output.stem}.rejects.parquet")
            if self._file
            else output / "rejects.parquet"
        )
        self._made: list[Path] = []

    def begin(self, identity: dict[str, Any], force: bool) -> dict[str, Any] | None:
        """The summary where all is done already; else makes the folder ready for parts.

        Raises:
            ConfigError: what is there was scored with other options, or is something else.
        """
        if self.rejects.is_dir():
            raise ConfigError(
                f"--output = {str(self._file or self.folder)!r}: {self.rejects} is a folder; valid:"
                " another place"
            )
        if force:
            self._forget()
        mark = self._mark()
        if mark is None:
            self._check_free()
            mark = {"identity": identity, "summary": None}
        elif mark["identity"] != identity:
            raise ConfigError(self._other(mark["identity"], identity))
        if mark["summary"] is not None:
            self._clear()
            return dict(mark["summary"])
        self._made = make_folders(self.folder, SCORES, REFUSED)
        for torn in self.folder.glob("*/*.partial"):
            torn.unlink(missing_ok=True)
        write_mark(self.folder / MARK, mark)
        return None

    def done(self) -> Iterator[Counts]:
        """The counts of each part that is there."""
        for file in sorted((self.folder / SCORES).glob("part-*.parquet")):
            yield json.loads(pq.read_schema(file).metadata[PART_KEY])

    def finish(self, identity: dict[str, Any], counts: Counts) -> dict[str, Any]:
        """Joins rejects, and parts where a file is wanted, and marks the output as done."""
        summary = {**counts, "reasons": self._join_rejects()}
        mark = {"identity": identity, "summary": summary}
        if self._file is not None:
            _join(self._part_files(), self._file, {MARK_KEY: json.dumps(mark).encode()})
        else:
            write_mark(self.folder / MARK, mark)
        self._clear()
        return summary

    def undo(self) -> None:
        """Deletes what ``begin`` made, where no part was written since."""
        if not self._part_files():
            self._forget()
            unmake(self._made)

    def _clear(self) -> None:
        """Deletes what a finished output needs no longer."""
        if self._file is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        shutil.rmtree(self.folder / REFUSED, ignore_errors=True)
        for copy in self.folder.glob(UNPACKED):
            copy.unlink(missing_ok=True)

    def _part_files(self) -> list[Path]:
        return sorted((self.folder / SCORES).glob("part-*.parquet"))

    def _join_rejects(self) -> dict[str, int]:
        """How many rows were refused for each reason, most frequent first."""
        return join_rejects(sorted((self.folder / REFUSED).glob("part-*.parquet")), self.rejects)

    def _mark(self) -> dict[str, Any] | None:
        if (mark := read_mark(self.folder / MARK)) is not None:
            return mark
        if self._file is not None and self._file.is_file():
            try:
                text = (pq.read_schema(self._file).metadata or {}).get(MARK_KEY)
            except (pa.ArrowException, OSError):
                return None
            return None if text is None else dict(json.loads(text))
        return None

    def _check_free(self) -> None:
        """Nothing that is not ours is written over."""
        for place in (self._file, self.folder / SCORES, self.rejects, self.folder / MARK):
            if place is not None and place.exists():
                raise ConfigError(
                    f"--output = {str(self._file or self.folder)!r}: {place} is there and was not"
                    " made by this command; valid: another place, or --force to write over it"
                )

    def _other(self, there: dict[str, Any], wanted: dict[str, Any]) -> str:
        names = [name for name in wanted if there.get(name) != wanted[name]]
        shown = ", ".join(f"{name} (there: {there.get(name)!r})" for name in names)
        return (
            f"--output = {str(self._file or self.folder)!r}: holds scores made with other options:"
            f" {shown}; valid: those options, another place, or --force to score all anew"
        )

    def _forget(self) -> None:
        """Deletes what this command made, or would write over, and nothing else."""
        for folder in (self.folder / SCORES, self.folder / REFUSED):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self._file, self.rejects, self.folder / MARK, *self.folder.glob(UNPACKED)):
            if file is not None:
                file.unlink(missing_ok=True)


def join_rejects(pieces: list[Path], file: Path) -> dict[str, int]:
    """Joins tables of rejects in a file, where there are any; how many there are by reason.

    The most frequent reason comes first.
    """
    reasons: Counter[str] = Counter()
    if not pieces:
        file.unlink(missing_ok=True)
        return {}
    partial = partial_of(file)
    with pq.ParquetWriter(partial, REJECTS) as writer:
        for piece in pieces:
            table = pq.read_table(piece)
            reasons.update(table["reason"].to_pylist())
            writer.write_table(table)
    os.replace(partial, file)
    return dict(reasons.most_common())


def make_folders(folder: Path, *inner: str) -> list[Path]:
    """Makes a folder and others in it; those that were not there."""
    made = []
    for place in (folder, *(folder / name for name in inner)):
        if not place.is_dir():
            place.mkdir()
            made.append(place)
    return made


def unmake(made: list[Path]) -> None:
    """Deletes folders of ``make_folders`` that are empty."""
    for place in reversed(made):
        with contextlib.suppress(OSError):
            place.rmdir()


def write_part(folder: Path, counts: Counts, table: pa.Table, rejects: pa.Table) -> None:
    """Writes a part with its counts in the metadata, the rows that it refused before it."""
    name = f"part-{counts['part']:05d}.parquet"
    if rejects.num_rows:
        write_table(folder / REFUSED / name, rejects)
    metadata = {**(table.schema.metadata or {}), PART_KEY: json.dumps(counts).encode()}
    write_table(folder / SCORES / name, table.replace_schema_metadata(metadata))


def write_table(file: Path, table: pa.Table) -> None:
    """Writes a Parquet file that is there wholly or not at all."""
    partial = partial_of(file)
    pq.write_table(table, partial)
    os.replace(partial, file)


def _join(parts: list[Path], file: Path, metadata: dict[bytes, bytes]) -> None:
    """One file of all parts, a row group each."""
    partial = partial_of(file)
    schema = pq.read_schema(parts[0])
    kept = {k: v for k, v in (schema.metadata or {}).items() if k != PART_KEY}
    schema = schema.with_metadata({**kept, **metadata})
    with pq.ParquetWriter(partial, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).replace_schema_metadata(schema.metadata))
    os.replace(partial, file)


def write_mark(file: Path, mark: dict[str, Any]) -> None:
    """Writes a JSON file that is there wholly or not at all."""
    partial = partial_of(file)
    partial.write_text(json.dumps(mark, indent=1))
    os.replace(partial, file)


def read_mark(file: Path) -> dict[str, Any] | None:
    """A mark of ``write_mark``; None where there is none, or something else."""
    try:
        mark = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and {"identity", "summary"} <= mark.keys() else None


def partial_of(file: Path) -> Path:
    """A name of its own: a worker that outlives its driver may still be writing."""
    return file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
