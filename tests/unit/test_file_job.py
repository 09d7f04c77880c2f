"""Where a job's output may go, and that one run at a time writes there."""

import multiprocessing
import os
import stat
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from rich.console import Console

from jobs.batch.file_job import cause, check_output_path, check_rows_file, file_job, locked
from jobs.command_line.exit_codes import BAD_CONFIG, OK
from jobs.sweep.main import locked_output
from orchestrator.config.load import ConfigError
from orchestrator.data.files import BadFile
from orchestrator.stages.store import Store

BOTH = (".parquet", ".jsonl")


def refused(place: Path, suffixes: Sequence[str] = BOTH) -> str:
    with pytest.raises(ConfigError) as error:
        check_output_path("--out", place, suffixes)
    said = str(error.value)
    assert said.startswith(f"--out = {str(place)!r}: ") and "\n" not in said
    assert "; valid: a local folder, or a file that ends with .parquet" in said
    return said


def test_a_folder_or_a_file_of_a_known_format_may_be_made_and_leaves_no_trace(
    tmp_path: Path,
) -> None:
    names = ("out", "out.parquet", "out.jsonl", "out.v2", "Llama-3.1-8B", ".hidden")
    for name in names:
        check_output_path("--out", tmp_path / name, BOTH)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "my.run").mkdir()
    check_output_path("--out", tmp_path / "my.run", BOTH)


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl.gz", "x.txt", "x.PARQUET", "x.arrow"])
def test_a_file_of_another_format_is_refused(name: str, tmp_path: Path) -> None:
    assert "files of the format" in refused(tmp_path / name)
    assert "files of the format .jsonl cannot" in refused(tmp_path / "x.jsonl", (".parquet",))


def test_a_folder_is_made_only_where_its_parent_is(tmp_path: Path) -> None:
    assert f"no such folder: {tmp_path / 'no'}" in refused(tmp_path / "no" / "out")
    assert f"no such folder: {tmp_path / 'no'}" in refused(tmp_path / "no" / "out.parquet")
    (tmp_path / "file").write_text("mine")
    assert "no such folder" in refused(tmp_path / "file" / "out")
    assert "is a file" in refused(tmp_path / "file")
    (tmp_path / "x.jsonl").mkdir()
    assert "is a folder, but has the suffix of a file" in refused(tmp_path / "x.jsonl")


@pytest.mark.parametrize("place", ["/proc/out", "/proc/out.jsonl", "/dev/null", "/dev/null/out"])
def test_what_is_no_place_on_a_disk_is_refused(place: str) -> None:
    said = refused(Path(place))
    assert "cannot be written: " in said or "is a file" in said or "no such folder" in said
    assert "another run" not in said


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    assert "cannot be written: " in refused(tmp_path / ("x" * 300) / "out")
    said = refused(tmp_path / "a\0b" / "out")
    assert "cannot be written: " in said or "no such folder: " in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert "cannot be written: Permission denied" in refused(tmp_path / "out")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def hold(folder: Path, told: Connection) -> None:
    with locked(folder, "--out", folder):
        told.send("held")
        time.sleep(120)


def test_another_run_is_told_of_only_while_there_is_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    folder = tmp_path / "out"
    other = context.Process(target=hold, args=(folder, there))
    other.start()
    try:
        assert here.poll(60) and here.recv() == "held"
        with (
            pytest.raises(ConfigError, match="another run is writing there"),
            locked(folder, "--out", folder),
        ):
            raise AssertionError("both write")
        other.kill()  # and cannot put its lock away
        other.join(60)
        assert (tmp_path / ".out.lock").exists()
        with locked(folder, "--out", folder):
            pass
    finally:
        other.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_no_other_run(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").mkdir()
    with (
        pytest.raises(ConfigError, match=r"\.out\.lock cannot be locked: Is a directory"),
        locked(tmp_path / "out", "--out", tmp_path / "out"),
    ):
        raise AssertionError


def test_a_job_hears_of_a_wrong_place_before_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(place: Path, console: Console) -> int:
        ran.append(place)
        return OK

    ran: list[Path] = []
    assert file_job("x", "--out", str(tmp_path / "x.csv"), BOTH, run) == BAD_CONFIG
    assert file_job("x", "--out", "s3://bucket/out", BOTH, run) == BAD_CONFIG
    assert ran == []
    said = capsys.readouterr().err
    assert (
        "files of the format .csv cannot be written" in said
        and "--out = 's3://bucket/out': a URI is not supported; valid: " in said
    )
    assert file_job("x", "--out", str(tmp_path / "out"), BOTH, run) == OK
    assert ran == [tmp_path / "out"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/no/file.jsonl", "no such file"),
        ("file.csv", "unknown format"),
        ("nope://x.jsonl", "cannot be looked up: Protocol not known: nope"),
    ],
)
def test_a_file_that_is_not_there_is_refused_however_it_is_named(source: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"--input = {source!r}: {why}") as error:
        check_rows_file("--input", source, (".jsonl",), "a file")
    assert str(error.value).endswith("; valid: a file")


def test_a_cause_is_told_without_the_class_that_a_traceback_names() -> None:
    error = RuntimeError(
        "Traceback:\n  line\norchestrator.data.files.BadFile: x.parquet: is damaged"
    )
    assert cause(error) == "x.parquet: is damaged"
    assert cause(ValueError("x = 1: no")) == "x = 1: no"
    died = RayActorError(error_msg="The actor died.\n\tit ran out of memory")
    assert cause(died) == "it ran out of memory"


def test_a_cause_without_a_traceback_is_told_in_full() -> None:
    assert cause(BadFile("x.parquet", "is damaged")) == "x.parquet: is damaged"
    assert cause(ValueError("two lines:\n  the second")) == "two lines: the second"
    assert cause(ValueError()) == "ValueError"


def test_one_sweep_at_a_time_writes_to_a_folder_and_its_lock_goes_with_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    for _ in range(2):
        with (
            locked_output(store),
            pytest.raises(ConfigError, match="another job is writing there"),
            locked_output(store),
        ):
            raise AssertionError("two at once")
        assert list(store.local.iterdir()) == []
