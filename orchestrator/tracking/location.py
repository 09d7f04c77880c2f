"""Where the runs of a job are kept: the config's store, the environment's, or the default one.

The default is one SQLite file for all sweeps beside each other, in the folder that holds their
output folders, so that the MLflow UI compares them.
"""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.masking import mask_secrets

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASE = "mlflow.db"
SQLITE = "sqlite:"
DEFAULT = "default"
_UI_HOST, _UI_PORT = "127.0.0.1", 5000


@dataclass(frozen=True)
class StoreLocation:
    """A tracking store and why it is used.

    Attributes:
        uri: its tracking URI.
        source: what names it, for messages.
    """

    uri: str
    source: str


def location_of(configured: str | None, output: Path) -> StoreLocation:
    """Return the store of a job.

    Args:
        configured: `tracking.uri`.
        output: the local output folder. The default store is in the folder above it, or in it if
            the folder above is not writable or has the store of another user.
    """
    if configured:
        return StoreLocation(configured, "tracking.uri")
    if exported := os.environ.get(VARIABLE):
        return StoreLocation(exported, f"${VARIABLE}")
    shared = output.parent / DATABASE
    file = shared if _is_writable(shared) else output / DATABASE
    return StoreLocation(sqlite_uri(file), DEFAULT)


def adopt_earlier_store(location: StoreLocation, output: Path) -> str:
    """Move the store that an earlier version kept in the output folder; return a sentence, or "".

    Its artifacts stay where they are, since the store has their paths. If the default store exists
    already, the job logs the finished stages of the output in it again.
    """
    earlier, file = output / DATABASE, sqlite_file(location.uri)
    if location.source != DEFAULT or file is None or file == earlier or not earlier.is_file():
        return ""
    if file.exists():
        return f"the runs of {earlier} are logged again in {file}"
    earlier.rename(file)
    return f"{earlier} is now {file}"


def sqlite_uri(file: Path) -> str:
    """Return the URI of an SQLite file; characters such as `?` and `%` are encoded."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(file.absolute())).render_as_string()


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI; None for another store or a database in memory."""
    if not uri.startswith(SQLITE):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(uri).database
    return None if database in (None, "", ":memory:") else Path(str(database)).absolute()


def ui_command(uri: str) -> str:
    """Return the command that starts the UI of a store on this machine, or a server's address."""
    if uri.startswith(("http://", "https://")):
        return mask_secrets(uri)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", mask_secrets(uri)]
    return shlex.join([*command, "--host", _UI_HOST, "--port", str(_UI_PORT)])


def _is_writable(file: Path) -> bool:
    if file.exists():
        return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    folder = next((f for f in file.parents if f.exists()), Path("/"))
    return os.access(folder, os.W_OK | os.X_OK)
