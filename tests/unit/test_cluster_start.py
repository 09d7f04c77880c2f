"""The start of a local Ray that takes too long for Ray's own limit, and other errors of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.sweep.cluster import START_ATTEMPTS, start_local

BUSY = Exception("The current node timed out during startup. This could happen because ...")


def init_with(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Any]:
    """Makes ray.init raise these errors in turn; a busy machine cannot be ordered."""
    calls: list[Any] = []

    def init(**options: Any) -> Any:
        calls.append(options)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr("ray.init", init)
    return calls


def test_a_start_that_takes_too_long_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = init_with(monkeypatch, BUSY, BUSY)
    assert start_local(2, dashboard=True) == "127.0.0.1:8265"
    assert len(calls) == 3 and calls[0] == calls[2]


def test_it_is_not_tried_for_ever_and_no_other_error_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = init_with(monkeypatch, *[BUSY] * 9)
    with pytest.raises(Exception, match="timed out during startup"):
        start_local(2, dashboard=True)
    assert len(calls) == START_ATTEMPTS
    calls = init_with(monkeypatch, RuntimeError("no such option"))
    with pytest.raises(RuntimeError, match="no such option"):
        start_local(2, dashboard=True)
    assert len(calls) == 1
