"""The output of a file job: shards, rejects, and a manifest with the options and the summary.

An output folder holds `RESULTS/shard-*.parquet`, `rejects.parquet` and the manifest. An output file
is joined from such a folder next to it, which is then deleted. A shard is written completely or not
at all, so that a rerun of the job resumes after the finished shards.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypedDict, TypeVar, cast

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.batch.options import Identity
from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA as REJECTS
from orchestrator.stages.identity import named_path

REJECT_SHARDS, UNPACKED = ".rejects", "unpacked.*"
SHARDS = "shard-*.parquet"
# Names in outputs of earlier versions.
OLD_SHARDS, OLD_FOLDER, OLD_OPTIONS = "part-*.parquet", ".parts", {"--part-rows": "--shard-rows"}
SummaryT = TypeVar("SummaryT", bound=Mapping[str, object])


class Summary(TypedDict):
    """What every summary has: the number of rejects for each reason, most frequent first."""

    reasons: dict[str, int]


@dataclass(frozen=True)
class Manifest(Generic[SummaryT]):
    """Which options an output is made with, and its summary; None while the job runs."""

    identity: Identity
    summary: SummaryT | None

    def to_json(self) -> str:
        """Return the manifest as a JSON object."""
        return json.dumps({"identity": self.identity, "summary": self.summary}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest[SummaryT] | None":
        """Read a manifest; None if the text is something else."""
        try:
            content = json.loads(text)
        except ValueError:
            return None
        if not isinstance(content, dict) or not {"identity", "summary"} <= content.keys():
            return None
        identity = {OLD_OPTIONS.get(k, k): value for k, value in content["identity"].items()}
        return cls(identity, cast("SummaryT | None", content["summary"]))


class FileJobOutput(Generic[SummaryT]):
    """The output of one job; a subclass declares what differs between jobs.

    Args:
        path: a folder, or a file with one of the suffixes.

    Attributes:
        OPTION: the option that names the path, for errors.
        RESULTS: the folder of the shards inside an output folder.
        MANIFEST: file name of the manifest.
        SUFFIXES: suffixes of the files that can be written.
    """

    OPTION: ClassVar[str]
    RESULTS: ClassVar[str]
    MANIFEST: ClassVar[str]
    SUFFIXES: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path if path.suffix in self.SUFFIXES else None
        self.folder = path.with_name(f"{path.name}.shards") if self.file else path
        self.results = self.file or path / self.RESULTS
        self.rejects = (
            path.with_name(f"{path.stem}.rejects.parquet")
            if self.file
            else path / "rejects.parquet"
        )
        self._created: list[Path] = []

    @property
    def manifest(self) -> Path:
        """The file of the manifest while the job runs."""
        return self.folder / self.MANIFEST

    def begin(self, identity: Identity, force: bool) -> SummaryT | None:
        """Prepare the folder for shards, or return the summary of a finished output.

        Args:
            identity: the options that decide the output.
            force: whether to overwrite an output of other options or of another program.

        Raises:
            ConfigError: the output has other options, or another program or version wrote it.
        """
        for path in (self.rejects, self.manifest):
            if path.is_dir():
                raise self._error(f"{path} is a folder; valid: another path")
        if force:
            self._delete()
        manifest = self.read_manifest()
        if manifest is None:
            self._check_unused()
        elif manifest.identity != identity:
            raise self._other_options(manifest.identity, identity)
        elif manifest.summary is not None and self.results.exists():
            self._delete_temporary()
            return manifest.summary
        self._check_shard_names()
        self._created = _make_folders(self.folder, self.RESULTS, REJECT_SHARDS)
        for torn in self.folder.glob("*/.*.partial"):
            torn.unlink(missing_ok=True)
        write_text(self.manifest, Manifest(identity, None).to_json())
        return None

    def discard_if_empty(self) -> None:
        """Delete what ``begin`` created, unless a shard has been written since."""
        if not self.shards() and not self.reject_shards():
            self._delete()
            for folder in reversed(self._created):
                with contextlib.suppress(OSError):  # it is not empty
                    folder.rmdir()

    def shards(self) -> list[Path]:
        """Return the shards of results, by their index."""
        return sorted((self.folder / self.RESULTS).glob(SHARDS))

    def reject_shards(self) -> list[Path]:
        """Return the shards of rejects, by their index."""
        return sorted((self.folder / REJECT_SHARDS).glob(SHARDS))

    def read_manifest(self) -> Manifest[SummaryT] | None:
        """Read the manifest; None if there is none, or the file is something else."""
        try:
            return Manifest[SummaryT].from_json(self.manifest.read_bytes())
        except OSError:
            return None

    def write_shard(self, index: int, table: pa.Table | None, rejects: pa.Table) -> None:
        """Write the rejects of a shard if there are any, then its results unless None."""
        name = f"shard-{index:06d}.parquet"
        if rejects.num_rows:
            _write_table(self.folder / REJECT_SHARDS / name, rejects)
        if table is not None:
            _write_table(self.folder / self.RESULTS / name, table)

    def join_rejects(self) -> dict[str, int]:
        """Write all rejects as one table; return their number for each reason.

        The most frequent reason comes first. Without rejects there is no table.
        """
        reasons: Counter[str] = Counter()
        shards = self.reject_shards()
        if not shards:
            self.rejects.unlink(missing_ok=True)
            return {}
        partial = partial_of(self.rejects)
        with pq.ParquetWriter(partial, REJECTS) as writer:
            for shard in shards:
                table = pq.read_table(shard)
                reasons.update(table["reason"].to_pylist())
                writer.write_table(table)
        os.replace(partial, self.rejects)
        return dict(reasons.most_common())

    def close(self, identity: Identity, summary: SummaryT) -> SummaryT:
        """Join the shards if the output is a file, write the manifest, and return the summary."""
        manifest = Manifest(identity, summary)
        if self.file is not None:
            partial = partial_of(self.file)
            self.join(partial, manifest)
            os.replace(partial, self.file)
        self.write_final_manifest(manifest)
        self._delete_temporary()
        return summary

    def join(self, file: Path, manifest: Manifest[SummaryT]) -> None:
        """Write all shards to one file."""
        raise NotImplementedError

    def write_final_manifest(self, manifest: Manifest[SummaryT]) -> None:
        """Write the manifest of the finished output."""
        write_text(self.manifest, manifest.to_json())

    def _check_unused(self) -> None:
        for path in (self.results, self.rejects, self.manifest):
            if path.exists():
                raise self._error(
                    f"{path} exists and was not written by this command; valid: another path, or"
                    " --force to overwrite it"
                )

    def _check_shard_names(self) -> None:
        old_folder = self.path.with_name(f"{self.path.name}{OLD_FOLDER}")
        folder = old_folder if self.file else self.folder
        if any(folder.glob(f"*/{OLD_SHARDS}")):
            raise self._error(
                f"{folder} holds unfinished shards of an earlier version, named {OLD_SHARDS};"
                " valid: another path, or --force to delete them"
            )

    def _other_options(self, there: Identity, wanted: Identity) -> ConfigError:
        names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
        changes = ", ".join(_change(name, there.get(name), wanted.get(name)) for name in names)
        return self._error(
            f"was made with other options: {changes}; valid: the same options and files, another"
            " path, or --force to overwrite"
        )

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"{self.OPTION} = {str(self.path)!r}: {text}")

    def _delete_temporary(self) -> None:
        """Delete what a finished output does not need."""
        temporary = self.folder if self.file else self.folder / REJECT_SHARDS
        shutil.rmtree(temporary, ignore_errors=True)
        for copy in self.folder.glob(UNPACKED):
            copy.unlink(missing_ok=True)

    def _delete(self) -> None:
        """Delete what this command wrote or would overwrite, and nothing else."""
        folders = [self.folder]
        if self.file is not None:
            folders.append(self.path.with_name(f"{self.path.name}{OLD_FOLDER}"))
        for folder in folders:
            for name in (self.RESULTS, REJECT_SHARDS):
                shutil.rmtree(folder / name, ignore_errors=True)
            for file in (folder / self.MANIFEST, *folder.glob(UNPACKED)):
                file.unlink(missing_ok=True)
        for file in (self.rejects, self.manifest, *([self.file] if self.file else [])):
            file.unlink(missing_ok=True)
        if self.file is not None:
            with contextlib.suppress(OSError):  # it does not exist, or holds other files
                folders[-1].rmdir()


def write_text(file: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    partial = partial_of(file)
    partial.write_text(text)
    os.replace(partial, file)


def partial_of(file: Path) -> Path:
    """Return a unique temporary name next to a file.

    A worker that outlives its driver may still write to the name that it got.
    """
    return file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")


def _change(name: str, before: object, now: object) -> str:
    """Return how an option of an output differs from the option of the command line."""
    if named_path(before) == "" and named_path(now) == "":
        return f"the contents of {name} have changed"
    return f"{name} = {_value(before)} (now {_value(now)})"


def _value(value: object) -> str:
    """Return a value of an identity for a message; a hash of contents says nothing to a reader."""
    path = named_path(value)
    return "a local file or folder" if path == "" else repr(value if path is None else path)


def _write_table(file: Path, table: pa.Table) -> None:
    partial = partial_of(file)
    pq.write_table(table, partial)
    os.replace(partial, file)


def _make_folders(folder: Path, *inner: str) -> list[Path]:
    """Create a folder and folders in it; return those that did not exist."""
    created = []
    for path in (folder, *(folder / name for name in inner)):
        if not path.is_dir():
            path.mkdir()
            created.append(path)
    return created
