"""The parent run of a job ends with the status of its work, in a real MLflow store on SQLite."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from jobs.command_line.exit_codes import FAILED, OK
from jobs.sweep.runner import StageFailed
from jobs.sweep.tracking import run_tracked
from orchestrator.config.load import ConfigError, load_config
from orchestrator.tracking.mlflow_tracker import RunRef, Tracker


class Resources:
    """Counts the calls of ``close``."""

    closed = 0

    def close(self, wait: bool = True) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(scope="module")
def tracker(uri: str) -> Tracker:
    return Tracker(uri, "helpdesk")


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    console = Console(file=io.StringIO())
    files = SimpleNamespace(store=SimpleNamespace(local=tmp_path))
    return SimpleNamespace(
        config=load_config(None), console=console, resources=Resources(), files=files
    )


def status(uri: str, run_id: str) -> str:
    return str(MlflowClient(tracking_uri=uri).get_run(run_id).info.status)


@pytest.mark.parametrize(
    ("result", "code", "expected"),
    [
        (OK, OK, "FINISHED"),
        (FAILED, FAILED, "FAILED"),
        (StageFailed("orm: broken"), FAILED, "FAILED"),
    ],
    ids=["finished", "failed", "stage failed"],
)
def test_the_exit_code_and_the_status_of_the_parent_run(
    result: int | BaseException,
    code: int,
    expected: str,
    tracker: Tracker,
    uri: str,
    workspace: Any,
) -> None:
    parents: list[RunRef] = []

    def work(parent: RunRef) -> int:
        parents.append(parent)
        if isinstance(result, BaseException):
            raise result
        return result

    key = f"{type(result).__name__} {code}"  # MLflow cannot search for quotes
    assert run_tracked(tracker, key, "run", {}, workspace, work) == code
    assert status(uri, tracker.run_id(parents[0])) == expected
    assert workspace.resources.closed == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("no disk"), "FAILED"),
        (ConfigError("bad"), "FAILED"),
        (SystemExit(3), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_any_other_exception_ends_the_parent_run_and_is_raised(
    error: BaseException, expected: str, tracker: Tracker, uri: str, workspace: Any
) -> None:
    parents: list[RunRef] = []

    def work(parent: RunRef) -> int:
        parents.append(parent)
        raise error

    with pytest.raises(type(error)) as raised:
        run_tracked(tracker, type(error).__name__, "run", {}, workspace, work)
    assert raised.value is error
    assert status(uri, tracker.run_id(parents[0])) == expected
    assert workspace.resources.closed == 1


def test_an_error_of_mlflow_is_raised_and_not_the_next_one(
    tracker: Tracker, workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object) -> None:
        raise OSError("the second error")

    def work(parent: RunRef) -> int:
        monkeypatch.setattr(tracker, "finish", unreachable)
        raise OSError("the first error")

    with pytest.raises(OSError, match="the first error"):
        run_tracked(tracker, "unreachable", "run", {}, workspace, work)
    assert workspace.resources.closed == 1
