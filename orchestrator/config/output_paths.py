"""Checks of the files, folders, disks and URIs that a job reads and writes, before it starts."""

import os
import shutil
from functools import lru_cache
from pathlib import Path

import fsspec

from orchestrator.config.errors import ConfigError, reason_of, shown
from orchestrator.config.tree import Config
from orchestrator.stages.output_folder import permanent_output_dir
from orchestrator.stages.store import Store

READ_ONLY = ("data", "git", "github", "http", "https", "libarchive", "reference", "zip")
LONGEST_NAME, LONGEST_PATH = 255, 4_096  # bytes, on Linux
ROOM = 200  # bytes of paths inside the output folder: stages, keys, files of checkpoints
GIB = 2**30


def check_output(config: Config, working_dir: Path) -> None:
    """Check that the output folder can be created and written, and that its disk is large enough.

    Raises:
        ConfigError: it cannot; the message names ``output_dir`` or ``storage.free_gib``.
    """
    wanted = config.output_dir or f"runs/{config.name}"
    named = f"output_dir = {shown(wanted)}"
    valid = "valid: a writable local folder or fsspec URI"
    try:
        path, _ = permanent_output_dir(config.output_dir, config.name, working_dir)
        store = Store(path)
        reason = _path_problem(store.local)
        parent = existing(Path("/") if reason else store.local)
        reason = reason or _write_problem(store, parent)
    except (OSError, ValueError, RuntimeError) as error:  # no such user, no such name
        raise ConfigError(f"{named}: {reason_of(error)}; {valid}") from error
    if reason:
        raise ConfigError(f"{named}: {reason}; {valid}")
    disk = shutil.disk_usage(parent).total / GIB
    if config.storage.free_gib > disk:
        raise ConfigError(
            f"storage.free_gib = {config.storage.free_gib:g}: the disk of output_dir has"
            f" {disk:,.1f} GiB; valid: less than that"
        )


def check_target(field: str, file: Path) -> None:
    """Check that a file can be written: its folder exists or can be created.

    Raises:
        ConfigError: it cannot; the message names ``field``.
    """
    try:
        path = file.expanduser().absolute()
        reason = _path_problem(path, holds_files=False) or _target_problem(path)
    except (OSError, ValueError, RuntimeError) as error:
        reason = reason_of(error)
    if reason:
        raise ConfigError(
            f"{field} = {shown(str(file))}: {reason}; valid: a file in a writable folder"
        )


def existing(path: Path) -> Path:
    """Return the path if it exists, else the nearest folder above it that does."""
    while not path.exists():
        path = path.parent
    return path


def check_file(field: str, source: str, suffixes: tuple[str, ...], valid: str) -> None:
    """Check that a file exists and has one of the suffixes; for a URI, its suffix and protocol.

    Raises:
        ConfigError: the file does not exist, its suffix is another one, or the protocol is not
            supported; the message names ``field``.
    """
    if not source.endswith(suffixes):
        raise ConfigError(f"{field} = {shown(source)}: unknown format; valid: {valid}")
    if "://" in source:
        check_uri(field, source)
    elif not is_file(source):
        raise ConfigError(f"{field} = {shown(source)}: no such file; valid: {valid}")


def check_uri(field: str, uri: str, writing: bool = False) -> None:
    """Check that fsspec and the installed packages support the protocol of a URI.

    Raises:
        ConfigError: they do not; the message names ``field``.
    """
    if reason := _protocol_problem(uri, writing):
        valid = "valid: a local path, or a URI of another protocol"
        raise ConfigError(f"{field} = {shown(uri)}: {reason}; {valid}")


def is_file(path: str | Path) -> bool:
    """Whether a file exists; False for a name that no file can have."""
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a folder exists; False for a name that no folder can have."""
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def _path_problem(path: Path, *, holds_files: bool = True) -> str:
    """Return why no file or folder can have this path; "" if one can."""
    if any(character < " " for character in str(path)):
        return "contains control characters"
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        return f"a name in it is longer than {LONGEST_NAME} bytes"
    if len(os.fsencode(path)) > LONGEST_PATH - ROOM:
        if holds_files:
            return f"paths inside it would be longer than {LONGEST_PATH} bytes"
        return f"the path is longer than {LONGEST_PATH - ROOM} bytes"
    return ""


def _target_problem(path: Path) -> str:
    """Return why a file cannot be written; "" if no reason is found. Writes nothing."""
    parent = existing(path)
    if parent.is_dir() and parent == path:
        return "is a folder"
    if not parent.is_dir() and parent != path:
        return f"{parent} is not a folder"
    if not os.access(parent, os.W_OK):
        return f"no permission to write in {parent}"
    if not shutil.disk_usage(parent).total:
        return f"{parent} is not on a disk"
    return ""


def _write_problem(store: Store, parent: Path) -> str:
    """Return why a store cannot be written; "" if no reason is found. Writes nothing."""
    if store.remote and (reason := _protocol_problem(store.remote, writing=True)):
        return reason
    if not parent.is_dir():
        return f"{parent} is not a folder"
    if not os.access(parent, os.W_OK | os.X_OK):
        return f"no permission to write in {parent}"
    if not shutil.disk_usage(parent).total:
        return f"{parent} is not on a disk"
    return ""


@lru_cache
def _protocol_problem(uri: str, writing: bool) -> str:
    """Return why a URI cannot be read or written; "" if it can."""
    for part in uri.split("::"):
        protocol = part.split("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            return reason_of(error)
        if writing and protocol in READ_ONLY:
            return f"{protocol}:// cannot be written"
    return ""
