"""A hub name is looked up once: of a real server on this machine, which counts what it is asked."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestrator.config.load import ROOT

LOOK = """
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.load import ConfigError
try:
    check_checkpoint("models.orm", "org/model")
except ConfigError as error:
    print(error)
"""


@contextmanager
def hub(status: int, code: str | None) -> Iterator[tuple[str, list[str]]]:
    """A hub that has no model: its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if "/resolve/" in self.path:  # a file of a model; the library asks other things too
                asked.append(self.path)
            self.send_response(status)
            if code is not None:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *given: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def looked_up(endpoint: str, home: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT),
             "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("status", "code", "requests", "said"),
    [
        (503, None, 1, "not in the hub's cache, and the hub does not answer"),
        (404, "RepoNotFound", 1, "not found on the hub or in its cache"),
        (404, "EntryNotFound", 2, "not found on the hub or in its cache"),
    ],
)
def test_a_hub_is_asked_once_for_what_it_has_not(
    status: int, code: str | None, requests: int, said: str, tmp_path: Path
) -> None:
    with hub(status, code) as (endpoint, asked):
        text = looked_up(endpoint, tmp_path)
    assert text.startswith(f"models.orm = 'org/model': {said}")
    assert "; valid: a folder with config.json" in text and len(text.splitlines()) == 1
    assert len(asked) == requests, asked


def test_a_hub_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    text = looked_up("http://127.0.0.1:1", tmp_path)
    assert "not in the hub's cache, and the hub does not answer" in text


def test_offline_nobody_is_asked(tmp_path: Path) -> None:
    with hub(503, None) as (endpoint, asked):
        text = looked_up(endpoint, tmp_path, HF_HUB_OFFLINE="1")
    assert "not in the hub's cache, and " in text and asked == []


def test_what_is_in_the_cache_needs_no_hub(tmp_path: Path) -> None:
    commit = "0" * 40
    folder = tmp_path / "hub" / "models--org--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "adapter_config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    with hub(503, None) as (endpoint, asked):
        assert looked_up(endpoint, tmp_path) == "" and asked == []
