"""Whether a tracking store answers, asked once: MLflow itself tries for minutes.

Knows nothing of MLflow: a job asks before it imports that.
"""

import ssl
import threading
from collections.abc import Callable
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from orchestrator.masking import mask_secrets

ANSWER_S = 8.0  # given to a store to answer
SERVERS = ("http", "https")
DATABASES = ("mssql", "mysql", "postgresql", "sqlite")  # that MLflow knows
BROKEN = 500  # HTTP: from here on it is the server's own fault


class StoreNotOpened(RuntimeError):
    """Why a tracking store could not be opened."""


def check_answers(uri: str, seconds: float = ANSWER_S) -> None:
    """Checks that the server or database of a store answers; a folder needs no answer.

    Raises:
        StoreNotOpened: it does not, within so many seconds.
    """
    try:
        scheme = urlsplit(uri).scheme.split("+")[0]
    except ValueError as error:
        raise StoreNotOpened(str(error)) from error
    if scheme not in (*SERVERS, *DATABASES):
        return
    ask = _ask_server if scheme in SERVERS else _ask_database
    reasons: list[str] = []
    # A name that is looked up, or a server that accepts and says nothing, has no other end.
    asking = threading.Thread(target=_asked, args=(ask, uri, seconds, reasons), daemon=True)
    asking.start()
    asking.join(seconds)
    if asking.is_alive():
        raise StoreNotOpened(f"no answer within {seconds:g} s")
    if reasons:
        raise StoreNotOpened(mask_secrets(reasons[0]))


def _asked(ask: Callable[[str, float], None], uri: str, seconds: float, reasons: list[str]) -> None:
    try:
        ask(uri, seconds)
    except Exception as error:  # of any database driver, or of a part that is not installed
        text = str(error) or type(error).__name__
        reasons.append(text.splitlines()[0])


def _ask_server(uri: str, seconds: float) -> None:
    try:
        with urlopen(Request(uri, headers={"User-Agent": "prm-orchestrator"}), timeout=seconds):
            return
    except HTTPError as error:  # whoever refuses is there
        if error.code >= BROKEN:
            raise
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # MLflow has certificates of its own
            raise OSError(f"no server answers there: {error.reason}") from error


def _ask_database(uri: str, seconds: float) -> None:
    import sqlalchemy  # MLflow's own way to a database
    from sqlalchemy.exc import SQLAlchemyError

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise OSError(f"the database cannot be opened: {cause}") from error
    finally:
        engine.dispose()
