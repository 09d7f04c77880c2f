"""Where a sweep reads and writes: which folders, disks and URIs can be, told before it starts."""

import os
import shutil
from functools import lru_cache
from pathlib import Path

import fsspec

from orchestrator.config.errors import ConfigError, reason_of, shown
from orchestrator.config.tree import Config
from orchestrator.stages.output_folder import lasting_output_dir
from orchestrator.stages.store import Store

READ_ONLY = ("data", "git", "github", "http", "https", "libarchive", "reference", "zip")
LONGEST_NAME, LONGEST_PATH = 255, 4_096  # bytes, of Linux and its file systems
ROOM = 200  # bytes of a path below the output folder: stages, keys, checkpoints' files
GIB = 2**30


def check_output(config: Config, working_dir: Path) -> None:
    """Checks that the output folder can be made and written, and that its disk is large enough.

    Raises:
        ConfigError: it cannot; ``output_dir`` or ``storage.free_gib`` is named.
    """
    wanted = config.output_dir or f"runs/{config.name}"
    named = f"output_dir = {shown(wanted)}"
    valid = "valid: a folder on a disk, or an fsspec URI that can be written"
    try:
        place, _ = lasting_output_dir(config.output_dir, config.name, working_dir)
        store = Store(place)
        reason = _no_path(store.local)
        there = existing(Path("/") if reason else store.local)
        reason = reason or _not_writable(store, there)
    except (OSError, ValueError, RuntimeError) as error:  # no such user, no such name
        raise ConfigError(f"{named}: {reason_of(error)}; {valid}") from error
    if reason:
        raise ConfigError(f"{named}: {reason}; {valid}")
    disk = shutil.disk_usage(there).total / GIB
    if config.storage.free_gib > disk:
        raise ConfigError(
            f"storage.free_gib = {config.storage.free_gib:g}: the disk of output_dir has"
            f" {disk:,.1f} GiB; valid: less than that"
        )


def check_target(field: str, file: Path) -> None:
    """Checks that a file can be written: its folder is there, or can be made.

    Raises:
        ConfigError: it cannot; the message names ``field``.
    """
    reason = ""
    try:
        wanted = file.expanduser().absolute()
        there = existing(wanted)
        if reason := _no_path(wanted):
            pass
        elif there.is_dir() and there == wanted:
            reason = "a folder is there"
        elif not there.is_dir() and there != wanted:
            reason = f"{there} is no folder"
        elif not os.access(there, os.W_OK) or not shutil.disk_usage(there).total:
            reason = f"you may not write in {there}"
    except (OSError, ValueError, RuntimeError) as error:
        reason = reason_of(error)
    if reason:
        raise ConfigError(f"{field} = {shown(str(file))}: {reason}; valid: a file's name")


def existing(place: Path) -> Path:
    """The nearest of a path and the folders above it that is there."""
    while not place.exists():
        place = place.parent
    return place


def check_uri(field: str, uri: str, writing: bool = False) -> None:
    """Checks that fsspec and the packages that are installed know the protocol of a URI.

    Raises:
        ConfigError: they do not; the message names ``field``.
    """
    if reason := _no_protocol(uri, writing):
        valid = "valid: a path on a disk, or a URI of another protocol"
        raise ConfigError(f"{field} = {shown(uri)}: {reason}; {valid}")


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; False of what no file can be called."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether there is such a folder; False of what no folder can be called."""
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def _no_path(path: Path) -> str:
    """Why nothing can be called so; "" where something can."""
    if any(character < " " for character in str(path)):
        return "a path has no control characters"
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        return f"no name in a path is longer than {LONGEST_NAME} bytes"
    if len(os.fsencode(path)) > LONGEST_PATH - ROOM:
        return f"with what is below it, the path is longer than {LONGEST_PATH} bytes"
    return ""


def _not_writable(store: Store, there: Path) -> str:
    """Why a store cannot be written; "" where it can, for all that can be told without trying."""
    if store.remote and (reason := _no_protocol(store.remote, writing=True)):
        return reason
    if not there.is_dir():
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"you may not write in {there}"
    if not shutil.disk_usage(there).total:
        return f"{there} is on no disk"
    return ""


@lru_cache
def _no_protocol(uri: str, writing: bool) -> str:
    for part in uri.split("::"):
        protocol = part.split("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            return reason_of(error)
        if writing and protocol in READ_ONLY:
            return f"{protocol}:// cannot be written"
    return ""
