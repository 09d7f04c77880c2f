"""The files of a checkpoint (a folder or a hub name): JSON objects and headers of safetensors.

No weights are read: of an uncached file on the hub only the header is fetched. A damaged file is a
ValueError whose message names it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import safe_open
from transformers.utils import cached_file

JsonFile = dict[str, Any]  # an object of a checkpoint's JSON file, whose values are not checked
_POINTER = b"version https://git-lfs"  # the beginning of a Git LFS file that was not fetched
_SHOWN = 300  # characters of another library's message


@dataclass(frozen=True)
class Header:
    """A tensor's entry in the header of its file; ``dtype`` as safetensors names it (F32)."""

    dtype: str
    shape: tuple[int, ...]


def file_of(checkpoint: str, name: str) -> Path | None:
    """Return the path of a checkpoint's file, fetched into the hub's cache; None if missing."""
    path = cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False)
    return Path(path) if path else None


def has_file(checkpoint: str, name: str) -> bool:
    """Return whether a checkpoint has a file, without fetching it.

    Of a hub model, a cached file counts; if the hub cannot be reached, an uncached file counts as
    missing.
    """
    if Path(checkpoint).is_dir():
        return (Path(checkpoint) / name).is_file()
    return _is_cached_or_on_hub(checkpoint, name)


def read_json(checkpoint: str, name: str) -> JsonFile:
    """Read a JSON object of a checkpoint; an empty one if there is no such file.

    Raises:
        ValueError: the file is not JSON, or not an object.
    """
    path = file_of(checkpoint, name)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # invalid JSON or invalid UTF-8
        raise ValueError(f"{checkpoint}: {name} is not JSON: {in_one_line(error)}") from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ValueError(f"{checkpoint}: {name} is a {kind}, not a JSON object of settings")
    return content


def read_headers(checkpoint: str, name: str) -> dict[str, Header]:
    """Read the header of a safetensors file: dtype and shape of each tensor, by name.

    Raises:
        ValueError: the file is missing, damaged, or cannot be fetched from the hub.
    """
    if Path(checkpoint).is_dir():
        path: str | None = str(Path(checkpoint) / name)
        if not Path(checkpoint, name).is_file():
            raise ValueError(f"{checkpoint}: {name} is missing")
    else:
        cached = try_to_load_from_cache(checkpoint, name)
        path = cached if isinstance(cached, str) else None
    try:
        return _headers_on_the_hub(checkpoint, name) if path is None else _headers_at(path)
    except Exception as error:
        pointer = path is not None and _first_bytes(path) == _POINTER
        reason = "a pointer of Git LFS; run `git lfs pull`" if pointer else in_one_line(error)
        raise ValueError(
            f"{checkpoint}: cannot read the safetensors header of {name}: {reason}"
        ) from error


def in_one_line(error: BaseException) -> str:
    """Return another library's message on one line, with its type if the message needs it."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, LookupError | ArithmeticError | TypeError | AttributeError):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@contextmanager
def as_value_error(message: str) -> Iterator[None]:
    """Convert any exception of another library to a ValueError.

    Raises:
        ValueError: ``message``, then the library's message on one line.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{message}: {in_one_line(error)}") from error


def _is_cached_or_on_hub(checkpoint: str, name: str) -> bool:
    try:
        cached = isinstance(try_to_load_from_cache(checkpoint, name), str)
        return cached or _is_on_hub(checkpoint, name)
    except Exception:  # not a hub name, or any error of the servers, the network or the library
        return False


@lru_cache(maxsize=256)
def _is_on_hub(checkpoint: str, name: str) -> bool:
    """Return the hub's answer. An exception is not cached: the hub may be reached later."""
    return HfApi().file_exists(checkpoint, name)


def _first_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(len(_POINTER))


def _headers_at(path: str) -> dict[str, Header]:
    with safe_open(path, framework="pt") as tensors:
        slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
        return {key: Header(s.get_dtype(), tuple(s.get_shape())) for key, s in slices.items()}


@lru_cache(maxsize=256)
def _headers_on_the_hub(repository: str, name: str) -> dict[str, Header]:
    tensors = HfApi().parse_safetensors_file_metadata(repository, name).tensors
    return {key: Header(str(info.dtype), tuple(info.shape)) for key, info in tensors.items()}
