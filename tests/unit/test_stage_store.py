"""Stages' outputs: what counts, what a kill leaves, what is deleted, copies at another place."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from orchestrator.stages.identity import ROOT
from orchestrator.stages.result import StageResult
from orchestrator.stages.store import MARKER, Stage, Store

MODULE = "orchestrator.rewards.weights"


def stage(version: int = 0, name: str = "cells/cbs/orm") -> Stage:
    return Stage(name, MODULE, {"version": version})


def write(store: Store, made: Stage, text: str = "x", figures: Any = None) -> None:
    with store.writing(made, figures if figures is not None else {}) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "model.bin").write_text(text)
        (folder / "table.txt").write_text(text)


def content(store: Store, made: Stage) -> str:
    return (store.folder(made) / "sub" / "model.bin").read_text()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture(params=["memory", "local"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An fsspec URI, with the local copies of the store in a temporary folder."""
    monkeypatch.setenv("PRM_ORCHESTRATOR_HOME", str(tmp_path / "first machine"))
    if request.param == "local":
        return f"local://{tmp_path / 'bucket'}"
    return f"memory://bucket{time.monotonic_ns()}"


def test_a_stage_is_done_when_its_block_has_ended_and_not_before(store: Store) -> None:
    made = stage()
    assert not store.done(made)
    with store.writing(made, {}) as folder:
        (folder / "table.txt").write_text("half")
        assert not store.done(made)
        assert not store.folder(made).exists()
    assert store.done(made)
    assert not store.done(stage(1)) and not store.done(stage(0, "orm"))


def test_the_marker_tells_what_the_stage_was_and_what_it_found(store: Store) -> None:
    data = Stage("data", MODULE, {})
    made = Stage("orm", MODULE, {"seed": 3}, (data,))
    result: StageResult = {}
    with store.writing(made, result):
        result["metrics"] = {"steps": 5}
    marker = store.marker(made)
    assert marker["key"] == made.key and marker["stage"] == "orm"
    assert marker["config"] == {"seed": 3} and marker["inputs"] == {"data": data.key}
    assert marker["figures"] == {"metrics": {"steps": 5}} and marker["seconds"] >= 0


def test_an_error_leaves_nothing_that_counts_and_the_next_try_starts_clean(store: Store) -> None:
    made = stage()
    with pytest.raises(RuntimeError), store.writing(made, {}) as folder:
        (folder / "left_over").write_text("half")
        raise RuntimeError
    assert not store.done(made)
    write(store, made)
    assert not (store.folder(made) / "left_over").exists()


@pytest.mark.parametrize("moment", ["inside", "before the rename"])
def test_a_kill_leaves_nothing_counted(store: Store, moment: str) -> None:
    """A real process, ended by SIGKILL while it writes, or after its marker but before the end."""
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from orchestrator.stages.store import Stage, Store

        def die(*_):
            os.kill(os.getpid(), 9)

        store, made = Store(sys.argv[1]), Stage(*sys.argv[2:4], {"version": 0})
        if sys.argv[4] == "before the rename":
            Path.rename = die
        with store.writing(made, {}) as folder:
            (folder / "table.txt").write_text("half")
            if sys.argv[4] == "inside":
                die()
        """
    )
    made = stage()
    arguments = [str(store.local), made.name, made.module, moment]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert list(store.local.rglob("table.txt")), "it was killed in the middle of its work"
    assert not store.done(made)
    assert store.prune(made, kept=1) == []
    write(store, made, "whole")
    assert content(store, made) == "whole"
    assert [p.name for p in store.local.rglob("*.partial")] == []


def test_a_forced_stage_replaces_its_old_output(store: Store) -> None:
    write(store, stage(), "old")
    write(store, stage(), "new")
    assert content(store, stage()) == "new"


def test_forget_removes_one_version_and_leaves_the_others(store: Store) -> None:
    write(store, stage(0))
    write(store, stage(1))
    store.invalidate(stage(0))
    store.invalidate(stage(2))  # never made
    assert not store.done(stage(0)) and not store.folder(stage(0)).exists()
    assert store.done(stage(1))


@pytest.mark.parametrize(
    ("kept", "left"), [(1, {4}), (2, {4, 3}), (3, {4, 3, 2}), (9, {*range(5)})]
)
def test_prune_keeps_the_newest_versions_and_always_the_present_one(
    store: Store, kept: int, left: set[int]
) -> None:
    now = time.time()
    for version in range(5):
        write(store, stage(version))
        marker = store.folder(stage(version)) / MARKER
        os.utime(marker, (now + version, now + version))
    other = stage(0, "cells/cbs/prm_sst")
    write(store, other)
    gone = store.prune(stage(4), kept)
    assert {v for v in range(5) if store.done(stage(v))} == left
    assert len(gone) == 5 - len(left)
    assert store.done(other), "another stage's versions are its own"


def test_prune_does_not_delete_the_present_version_though_it_is_the_oldest(store: Store) -> None:
    for version in range(3):
        write(store, stage(version))
    store.prune(stage(0), kept=1)
    assert [store.done(stage(v)) for v in range(3)] == [True, False, False]


def test_a_remote_store_gives_its_outputs_to_another_machine(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Store(remote), stage(), "far", {"metrics": {"a": 1}})
    monkeypatch.setenv("PRM_ORCHESTRATOR_HOME", str(tmp_path / "second machine"))
    other = Store(remote)
    assert other.done(stage()) and not other.done(stage(1))
    assert str(other.local).startswith(str(tmp_path / "second machine"))
    assert other.marker(stage())["figures"] == {"metrics": {"a": 1}}
    assert content(other, stage()) == "far"
    other.invalidate(stage())
    assert not other.done(stage())
    monkeypatch.setenv("PRM_ORCHESTRATOR_HOME", str(tmp_path / "third machine"))
    assert not Store(remote).done(stage())


def test_the_remote_marker_is_written_after_every_other_file(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, _ = fsspec.core.url_to_fs(remote)
    written: list[str] = []
    put = type(filesystem).put_file

    def watched(self: Any, local: str, target: str, *rest: Any, **options: Any) -> Any:
        written.append(target)
        return put(self, local, target, *rest, **options)

    monkeypatch.setattr(type(filesystem), "put_file", watched)
    write(Store(remote), stage())
    assert len(written) == 3
    assert written[-1].endswith(MARKER) and sum(MARKER in name for name in written) == 1


def test_an_interrupted_upload_is_done_again(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem, _ = fsspec.core.url_to_fs(remote)
    put = type(filesystem).put_file

    def broken(self: Any, local: str, target: str, *rest: Any, **options: Any) -> Any:
        if target.endswith(MARKER):
            raise ConnectionError
        return put(self, local, target, *rest, **options)

    store = Store(remote)
    with monkeypatch.context() as patch:
        patch.setattr(type(filesystem), "put_file", broken)
        with pytest.raises(ConnectionError):
            write(store, stage())
    assert not store.done(stage()), "what is not at the store's own place is not done"
    write(store, stage(), "again")
    assert store.done(stage()) and content(store, stage()) == "again"


def test_publish_puts_a_file_at_the_top_of_the_place(remote: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"a": 1}))
    where = Store(remote).publish("summary.json", tmp_path / "summary.json")
    assert where == f"{remote}/summary.json"
    with fsspec.open(where) as stream:
        assert json.load(stream) == {"a": 1}


def test_a_file_uri_is_a_local_folder(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/out")
    write(store, stage())
    assert store.remote is None and store.folder(stage()).is_relative_to(tmp_path / "out")


def test_free_disk_is_told_for_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert Store(str(tmp_path / "a" / "b")).free_gib() > 0
