"""The store of stage outputs: one folder per key, which is valid once it has a marker file.

On a local disk a stage writes to a partial folder, which is renamed when the stage is finished. A
remote store (an fsspec URI) gets a copy of the finished folder, with the marker last. So no partial
output is ever read.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import fsspec

from orchestrator.masking import mask_secrets
from orchestrator.stages.identity import stage_key
from orchestrator.stages.output_folder import permanent_home
from orchestrator.stages.result import Marker, StageResult

MARKER = "_DONE.json"
_PROBE = ".writable"


@dataclass(frozen=True)
class Stage:
    """One step of the sweep: what decides its output and what it reads.

    Attributes:
        name: for example "orm" or "cells/cbs/prm_sst"; also its folder.
        module: dotted name of the module with its step function.
        config: JSON values that decide the output; they become MLflow params.
        inputs: the stages that it reads.
        files: fingerprints of the files and checkpoints that it reads, by name.
        components: dotted names of the modules of the registered components that it runs.
        keeps_checkpoint: whether `storage.checkpoints_kept` limits its old versions.
    """

    name: str
    module: str
    config: dict[str, object]
    inputs: tuple["Stage", ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    keeps_checkpoint: bool = False
    components: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """The key of the output."""
        inputs = {stage.name: stage.key for stage in self.inputs}
        return stage_key(
            self.name, self.module, self.config, {**inputs, **self.files}, self.components
        )


class Store:
    """The outputs of stages.

    Args:
        root: a local folder or an fsspec URI.
        exclusive: whether this process alone writes to the store. If not, other processes may write
            other keys of the same stage, whose partial outputs are then kept.
    """

    def __init__(self, root: str, exclusive: bool = True) -> None:
        self.root, self._exclusive = root, exclusive
        self.remote = None if "://" not in root or root.startswith("file://") else root.rstrip("/")
        local = root.removeprefix("file://")
        if self.remote:
            local = str(permanent_home() / "cache" / root.replace("://", "_").replace("/", "_"))
        self.local = Path(local).expanduser().absolute()

    def folder(self, stage: Stage) -> Path:
        """Return the local folder of a finished stage; a remote output is downloaded first."""
        folder = self._path(stage)
        if self.remote and not (folder / MARKER).exists():
            self._fetch(stage)
        return folder

    def done(self, stage: Stage) -> bool:
        """Whether the output of a stage is complete (a cache hit)."""
        if (self._path(stage) / MARKER).exists():
            return True
        if not self.remote:
            return False
        filesystem, path = fsspec.core.url_to_fs(f"{self._remote(stage)}/{MARKER}")
        return bool(filesystem.exists(path))

    def marker(self, stage: Stage) -> Marker:
        """Return the content of a finished stage's marker: seconds, config, inputs, result."""
        marker: Marker = json.loads((self.folder(stage) / MARKER).read_text())
        return marker

    @contextmanager
    def writing(self, stage: Stage, result: StageResult) -> Iterator[Path]:
        """Yield a folder for the output of a stage, which is valid if the block ends without error.

        Args:
            stage: the stage.
            result: stored in the marker; the block may fill it.
        """
        final = self._path(stage)
        partial = final.with_name(f".{final.name}.partial")
        if self._exclusive:
            self.clear_unfinished(stage)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        started = time.time()
        yield partial
        marker: Marker = {
            "stage": stage.name,
            "key": stage.key,
            "config": stage.config,
            "inputs": {source.name: source.key for source in stage.inputs},
            "seconds": time.time() - started,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "figures": result,
        }
        _write_durably(partial / MARKER, mask_secrets(json.dumps(marker, indent=1, sort_keys=True)))
        if self.remote:
            self._push(stage, partial)  # first: a local output must also be in the remote store
        shutil.rmtree(
            final, ignore_errors=True
        )  # the old output of a stage that --force invalidated
        partial.rename(final)

    def clear_unfinished(self, stage: Stage) -> None:
        """Delete the partial outputs of a stage, of any key."""
        for partial in self._path(stage).parent.glob(".*.partial"):
            shutil.rmtree(partial, ignore_errors=True)

    def invalidate(self, stage: Stage) -> None:
        """Delete the output of a stage, so that the stage runs again."""
        folder = self._path(stage)
        (folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        if self.remote:
            filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
            if filesystem.exists(f"{path}/{MARKER}"):
                filesystem.rm(f"{path}/{MARKER}")
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)

    def prune(self, stage: Stage, kept: int) -> list[Path]:
        """Delete all but the ``kept`` newest versions of a stage, never that of its key."""
        current = self._path(stage)
        markers = current.parent.glob(f"[!.]*/{MARKER}")
        others = sorted(
            (marker for marker in markers if marker.parent != current),
            key=lambda marker: marker.stat().st_mtime, reverse=True,
        )  # fmt: skip
        old = [marker.parent for marker in others[max(kept - 1, 0) :]]
        for version in old:
            (version / MARKER).unlink()
            shutil.rmtree(version)
        return old

    def free_gib(self) -> float:
        """Return the free space of the disk of the outputs (GiB)."""
        folder = self.local
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free / 2**30

    def check_remote(self) -> None:
        """Write a file to a remote store and delete it; errors of the file system are raised."""
        if not self.remote:
            return
        filesystem, path = fsspec.core.url_to_fs(f"{self.remote}/{_PROBE}")
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(path, b"")
        filesystem.rm_file(path)

    def publish(self, name: str, file: Path) -> str:
        """Copy a file, such as the report, to the top of the output folder; return its path."""
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if file != target:
            temporary = target.with_name(f".{target.name}.partial")
            shutil.copyfile(file, temporary)
            temporary.replace(target)
        if not self.remote:
            return str(target)
        filesystem, path = fsspec.core.url_to_fs(f"{self.remote}/{name}")
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        filesystem.put_file(str(target), path)
        return f"{self.remote}/{name}"

    def read(self, name: str) -> str | None:
        """Return the text of a published file; None if there is none."""
        if (self.local / name).is_file():
            return (self.local / name).read_text()
        if not self.remote:
            return None
        filesystem, path = fsspec.core.url_to_fs(f"{self.remote}/{name}")
        return str(filesystem.cat_file(path).decode()) if filesystem.exists(path) else None

    def _path(self, stage: Stage) -> Path:
        return self.local / "stages" / stage.name / stage.key

    def _remote(self, stage: Stage) -> str:
        return f"{self.remote}/stages/{stage.name}/{stage.key}"

    def _push(self, stage: Stage, folder: Path) -> None:
        filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
        files = [file for file in folder.rglob("*") if file.is_file() and file.name != MARKER]
        for file in [*files, folder / MARKER]:
            target = f"{path}/{file.relative_to(folder).as_posix()}"
            filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            filesystem.put_file(str(file), target)

    def _fetch(self, stage: Stage) -> None:
        filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
        folder = self._path(stage)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for source in filesystem.find(path):
            target = partial / source[source.index(stage.key) + len(stage.key) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(source, str(target))
        shutil.rmtree(
            folder, ignore_errors=True
        )  # an output without a marker, if `invalidate` was killed
        partial.rename(folder)


def _write_durably(file: Path, text: str) -> None:
    with file.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
