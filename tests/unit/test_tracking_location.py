"""Which store a job uses, and SQLite files at any path."""

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestrator.tracking.location import (
    adopt_earlier_store,
    location_of,
    sqlite_file,
    sqlite_uri,
)
from orchestrator.tracking.mlflow_tracker import Tracker

ODD = ["a?b", "a%20b", "a#b", "ü %", "a;b&c=d"]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_config_comes_first_then_the_environment_then_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "runs" / "smoke"
    default = location_of(None, output)
    assert sqlite_file(default.uri) == tmp_path / "runs" / "mlflow.db"
    assert location_of(None, output.with_name("other")).uri == default.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    exported = location_of(None, output)
    assert (exported.uri, exported.source) == ("http://host:5000", "$MLFLOW_TRACKING_URI")
    configured = location_of("sqlite:///x.db", output)
    assert (configured.uri, configured.source) == ("sqlite:///x.db", "tracking.uri")


def test_where_the_folder_above_is_not_ones_own_the_store_is_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    location = location_of(None, tmp_path / "out")
    assert sqlite_file(location.uri) == tmp_path / "out" / "mlflow.db"


@pytest.mark.parametrize("name", ODD)
def test_a_path_stays_what_it_is(name: str) -> None:
    file = Path("/") / name / "mlflow.db"
    assert sqlite_file(sqlite_uri(file)) == file


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "postgresql://h/db", "runs"])
def test_what_is_no_file_has_none(uri: str) -> None:
    assert sqlite_file(uri) is None


def test_database_and_artifacts_are_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "a?b%20#c"
    tracker = Tracker(sqlite_uri(folder / "mlflow.db"), "helpdesk")
    run = tracker.run_id(tracker.start_sweep("key", "name", {}, "seed: 1\n"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]
    assert (folder / "mlflow.db").is_file()
    client = MlflowClient(sqlite_uri(folder / "mlflow.db"))
    assert Path(client.download_artifacts(run, "config.yaml")).read_text() == "seed: 1\n"
    assert list(folder.glob("mlartifacts/**/config.yaml"))


def test_the_store_of_an_earlier_version_is_moved_and_keeps_its_runs(tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = Tracker(sqlite_uri(output / "mlflow.db"), "helpdesk")
    run = first.run_id(first.start_sweep("key", "name", {}, "seed: 1\n"))
    location = location_of(None, output)
    said = adopt_earlier_store(location, output)
    assert said == f"{output}/mlflow.db is now {tmp_path}/mlflow.db"
    client = MlflowClient(location.uri)
    assert Path(client.download_artifacts(run, "config.yaml")).read_text() == "seed: 1\n"
    assert adopt_earlier_store(location, output) == ""
    (output / "mlflow.db").touch()
    assert "logged again" in adopt_earlier_store(location, output)
