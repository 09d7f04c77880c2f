"""Where stages leave their outputs: a folder a key, which counts once its marker is there.

On a local disk a stage writes into a partial folder that is renamed when all is done. Any other
place (an fsspec URI) gets a copy of the finished folder, its marker last. Nothing half-done is
ever read.
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
from typing import Any

import fsspec

from orchestrator.masking import mask_secrets
from orchestrator.stages.identity import stage_key
from orchestrator.stages.output_folder import lasting_home

MARKER = "_DONE.json"
_PROBE = ".writable"


@dataclass(frozen=True)
class Stage:
    """One step of the sweep: what decides its output, and what it reads.

    Attributes:
        name: e.g. "orm" or "cells/cbs/prm_sst"; also its folder.
        module: dotted name of the module with its step function.
        config: JSON-able values that decide the output; they become MLflow params.
        inputs: the stages it reads.
        files: outside files or checkpoints it reads, by name: their fingerprints.
        components: dotted names of the modules of the registered components that it runs.
        keeps_checkpoint: whether old versions are deleted by `storage.checkpoints_kept`.
    """

    name: str
    module: str
    config: dict[str, Any]
    inputs: tuple["Stage", ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    keeps_checkpoint: bool = False
    components: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """What the stage's output is kept under."""
        inputs = {stage.name: stage.key for stage in self.inputs}
        return stage_key(
            self.name, self.module, self.config, {**inputs, **self.files}, self.components
        )


class Store:
    """The stages' outputs under ``root``, a local folder or an fsspec URI.

    ``alone`` is False where another process may write another key of the same stage: what is
    half-done of other keys is then left as it is.
    """

    def __init__(self, root: str, alone: bool = True) -> None:
        self.root, self._alone = root, alone
        self.remote = None if "://" not in root or root.startswith("file://") else root.rstrip("/")
        local = root.removeprefix("file://")
        if self.remote:
            local = str(lasting_home() / "cache" / root.replace("://", "_").replace("/", "_"))
        self.local = Path(local).expanduser().absolute()

    def folder(self, stage: Stage) -> Path:
        """The local folder of a finished stage; fetched first where the store is remote."""
        place = self._place(stage)
        if self.remote and not (place / MARKER).exists():
            self._fetch(stage)
        return place

    def done(self, stage: Stage) -> bool:
        """Whether the stage's output is there, whole."""
        if (self._place(stage) / MARKER).exists():
            return True
        if not self.remote:
            return False
        filesystem, path = fsspec.core.url_to_fs(f"{self._remote(stage)}/{MARKER}")
        return bool(filesystem.exists(path))

    def marker(self, stage: Stage) -> dict[str, Any]:
        """What was written when the stage was finished: seconds, config, inputs, figures."""
        return dict(json.loads((self.folder(stage) / MARKER).read_text()))

    @contextmanager
    def writing(self, stage: Stage, figures: dict[str, Any]) -> Iterator[Path]:
        """A folder to write the stage's output in; it counts when the block ends without error.

        ``figures`` may be filled inside the block; it is kept in the marker.
        """
        final = self._place(stage)
        partial = final.with_name(f".{final.name}.partial")
        if self._alone:
            self.clear_unfinished(stage)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        started = time.time()
        yield partial
        marker = {
            "stage": stage.name,
            "key": stage.key,
            "config": stage.config,
            "inputs": {read.name: read.key for read in stage.inputs},
            "seconds": time.time() - started,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "figures": figures,
        }
        _write_durably(partial / MARKER, mask_secrets(json.dumps(marker, indent=1, sort_keys=True)))
        if self.remote:
            self._push(stage, partial)  # first: what is here must be there as well
        shutil.rmtree(final, ignore_errors=True)  # a forced stage's old output
        partial.rename(final)

    def clear_unfinished(self, stage: Stage) -> None:
        """Removes what kills left half-done of a stage, of any key."""
        for left_over in self._place(stage).parent.glob(".*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)

    def forget(self, stage: Stage) -> None:
        """Removes a stage's output, so that it is done again."""
        place = self._place(stage)
        (place / MARKER).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        if self.remote:
            filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
            if filesystem.exists(f"{path}/{MARKER}"):
                filesystem.rm(f"{path}/{MARKER}")
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)

    def prune(self, stage: Stage, kept: int) -> list[Path]:
        """Deletes all but the ``kept`` newest versions of a stage, never the present one."""
        present = self._place(stage)
        markers = present.parent.glob(f"[!.]*/{MARKER}")
        others = sorted(
            (marker for marker in markers if marker.parent != present),
            key=lambda marker: marker.stat().st_mtime, reverse=True,
        )  # fmt: skip
        old = [marker.parent for marker in others[max(kept - 1, 0) :]]
        for folder in old:
            (folder / MARKER).unlink()
            shutil.rmtree(folder)
        return old

    def free_gib(self) -> float:
        """Free disk where outputs are written, in GiB."""
        place = self.local
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free / 2**30

    def check_remote(self) -> None:
        """Writes a file into a remote store and removes it; raises what the file system raises."""
        if not self.remote:
            return
        filesystem, path = fsspec.core.url_to_fs(f"{self.remote}/{_PROBE}")
        filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(path, b"")
        filesystem.rm_file(path)

    def publish(self, name: str, file: Path) -> str:
        """Puts a file of the sweep itself (summary, report) at the top of the output folder."""
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
        """The text of a file that was published, None where there is none."""
        if (self.local / name).is_file():
            return (self.local / name).read_text()
        if not self.remote:
            return None
        filesystem, path = fsspec.core.url_to_fs(f"{self.remote}/{name}")
        return str(filesystem.cat_file(path).decode()) if filesystem.exists(path) else None

    def _place(self, stage: Stage) -> Path:
        return self.local / "stages" / stage.name / stage.key

    def _remote(self, stage: Stage) -> str:
        return f"{self.remote}/stages/{stage.name}/{stage.key}"

    def _push(self, stage: Stage, place: Path) -> None:
        filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
        files = [file for file in place.rglob("*") if file.is_file() and file.name != MARKER]
        for file in [*files, place / MARKER]:
            target = f"{path}/{file.relative_to(place).as_posix()}"
            filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            filesystem.put_file(str(file), target)

    def _fetch(self, stage: Stage) -> None:
        filesystem, path = fsspec.core.url_to_fs(self._remote(stage))
        place = self._place(stage)
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for source in filesystem.find(path):
            target = partial / source[source.index(stage.key) + len(stage.key) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(source, str(target))
        shutil.rmtree(place, ignore_errors=True)  # what a killed `forget` left, without its marker
        partial.rename(place)


def _write_durably(file: Path, text: str) -> None:
    with file.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
