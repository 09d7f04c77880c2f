"""A tracking store that does not answer: a sentence within seconds, from real sockets and files."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator.tracking.reachability import TIMEOUT_S, StoreUnavailable, check_reachable


@contextmanager
def server(status: int) -> Iterator[str]:
    """A server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *given: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@contextmanager
def silent() -> Iterator[int]:
    """The port of a server that accepts, and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening.getsockname()[1]


def told(uri: str, seconds: float = TIMEOUT_S) -> str:
    with pytest.raises(StoreUnavailable) as error:
        check_reachable(uri, seconds)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("status", [200, 401, 404])
def test_whoever_answers_is_there(status: int) -> None:
    with server(status) as uri:
        check_reachable(uri)


def test_a_server_that_is_broken_is_told_at_once() -> None:
    with server(503) as uri:
        assert "503" in told(uri)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_nobody_there_is_told_at_once() -> None:
    assert "no server answers at this address" in told(f"http://127.0.0.1:{free_port()}")


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_is_said() -> None:
    with silent() as port:
        text = told(f"http://127.0.0.1:{port}", 0.5)
    assert "no answer within 0.5 s" in text or "timed out" in text


def test_a_database_that_cannot_be_opened_is_tried_once(tmp_path: Path) -> None:
    assert "unable to open" in told(f"sqlite:///{tmp_path}/none/mlflow.db")
    (tmp_path / "text.db").write_text("no database at all, but a text that is long enough " * 40)
    check_reachable(f"sqlite:///{tmp_path}/mlflow.db")
    assert told("postgresql://127.0.0.1:1/x?connect_timeout=1")  # no driver, or nobody there
    assert told("mysql+nothing://127.0.0.1/x")


@pytest.mark.parametrize("uri", ["runs", "file:///tmp/x", "databricks", "nowhere://host"])
def test_what_is_no_server_needs_no_answer(uri: str) -> None:
    check_reachable(uri)


def test_what_is_no_address_is_told() -> None:
    assert told("http://[::1")


def test_secrets_are_not_repeated() -> None:
    assert "geheim" not in told(f"http://anna:geheim@127.0.0.1:{free_port()}/x?token=geheim")
