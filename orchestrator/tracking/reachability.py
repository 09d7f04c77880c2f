"""Check once whether a tracking store answers; MLflow itself would retry for minutes.

Does not import MLflow, so that a job can check first.
"""

import ssl
import threading
from collections.abc import Callable
from functools import partial
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from orchestrator.masking import mask_secrets

TIMEOUT_S = 8.0  # seconds in which a store must answer
SERVERS = ("http", "https")
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")  # databases that MLflow supports
SERVER_ERROR = 500  # the smallest HTTP status that means an error of the server


class StoreUnavailable(RuntimeError):
    """A tracking store does not answer or cannot be opened; the message says why."""


def check_reachable(uri: str, seconds: float = TIMEOUT_S) -> None:
    """Check that the server or database of a store answers; any other URI passes unchecked.

    Args:
        uri: the tracking URI.
        seconds: time limit.

    Raises:
        StoreUnavailable: the URI is not valid, the server or database does not answer in time, the
            server answers with a 5xx status, or the database cannot be opened.
    """
    try:
        scheme = urlsplit(uri).scheme.split("+")[0]
    except ValueError as error:
        raise StoreUnavailable(str(error)) from error
    if scheme not in (*SERVERS, *DATABASES):
        return
    check: Callable[[str], None] = _check_database
    if scheme in SERVERS:
        check = partial(_check_server, seconds=seconds)
    reasons: list[str] = []
    # DNS lookups and database connects have no time limit. That of urlopen is for each read, so a
    # server that sends a few bytes at a time never exceeds it.
    thread = threading.Thread(target=_run, args=(check, uri, reasons), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise StoreUnavailable(f"no answer within {seconds:g} s")
    if reasons:
        raise StoreUnavailable(mask_secrets(reasons[0]))


def _run(check: Callable[[str], None], uri: str, reasons: list[str]) -> None:
    try:
        check(uri)
    except Exception as error:  # any error of a database driver, or a driver that is missing
        text = str(error) or type(error).__name__
        reasons.append(text.splitlines()[0])


def _check_server(uri: str, seconds: float) -> None:
    try:
        with urlopen(Request(uri, headers={"User-Agent": "prm-orchestrator"}), timeout=seconds):
            return
    except HTTPError as error:  # a server that refuses the request does answer
        if error.code >= SERVER_ERROR:
            raise
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow uses other certificates
            raise OSError(f"no server answers at this address: {error.reason}") from error


def _check_database(uri: str) -> None:
    import sqlalchemy  # MLflow uses it too
    from sqlalchemy.exc import SQLAlchemyError

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise OSError(f"the database cannot be opened: {cause}") from error
    finally:
        engine.dispose()
