"""Sample models in their cache folder: made once, complete or not at all, by one process."""

import shutil
import threading
import time
from pathlib import Path

import pytest

from orchestrator.checkpoints.sample_models import (
    CACHE_VARIABLE,
    Sample,
    SampleNotInstalled,
    cache_folder,
    unpack,
)

# A package of the environment with a file in it: what matters here is who writes, and when.
PACKAGE, SOURCE = "filelock", "filelock/py.typed"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "samples"))
    return tmp_path / "samples"


def copy(source: Path, folder: Path) -> None:
    shutil.copy(source, folder / "weights")
    (folder / "weights").chmod(0o600)  # as safetensors writes them


def test_the_cache_is_the_users_unless_a_variable_names_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_folder() == tmp_path / "samples"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "prm-orchestrator" / "samples"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "prm-orchestrator" / "samples"


def test_a_sample_is_written_once_and_readable_by_all_who_read_its_folder(cache: Path) -> None:
    begun: list[str] = []
    sample = Sample("model", PACKAGE, SOURCE, 3, copy)
    folder = unpack(sample, lambda one: begun.append(one.model))
    assert folder.parent == cache and folder.name.startswith("model-")
    assert folder.name.endswith("-3"), "a new revision of the conversion is another folder"
    assert (folder / "weights").stat().st_mode & 0o666 == folder.stat().st_mode & 0o666
    written = (folder / "weights").stat().st_mtime_ns
    assert unpack(sample, lambda one: begun.append(one.model)) == folder
    assert begun == ["model"] and (folder / "weights").stat().st_mtime_ns == written


def test_an_interrupted_sample_has_no_folder_and_the_next_call_begins_again(cache: Path) -> None:
    def stopped(source: Path, folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(Sample("model", PACKAGE, SOURCE, 1, stopped))
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]
    folder = unpack(Sample("model", PACKAGE, SOURCE, 1, copy))
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert [path for path in cache.iterdir() if path.is_dir()] == [folder]


def test_of_two_at_once_one_writes_and_both_get_the_whole_folder() -> None:
    writes: list[Path] = []
    results: list[list[str]] = []

    def slow(source: Path, folder: Path) -> None:
        writes.append(folder)
        (folder / "first").write_text("")
        time.sleep(0.3)
        (folder / "second").write_text("")

    sample = Sample("model", PACKAGE, SOURCE, 1, slow)

    def call() -> None:
        results.append(sorted(path.name for path in unpack(sample).iterdir()))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(writes) == 1
    assert results == [["first", "second"]] * 2


@pytest.mark.parametrize(
    ("package", "source", "reason"),
    [
        ("no-such-package", SOURCE, "the package no-such-package is not installed"),
        (PACKAGE, "filelock/model.gguf", "the package filelock has no filelock/model.gguf"),
    ],
)
def test_a_sample_that_is_not_installed_is_named_with_the_command_that_gets_it(
    package: str, source: str, reason: str
) -> None:
    with pytest.raises(SampleNotInstalled) as error:
        unpack(Sample("model", package, source, 1, copy))
    assert str(error.value) == f"model: {reason}; `python3 bootstrap.py samples` installs it"
