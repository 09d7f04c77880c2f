"""A checkpoint's config, and the names, shapes and dtypes of its weights.

Reads JSON and safetensors headers: no model is built, and only requested weights are read. For a
sharded checkpoint the names come from the index alone.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from orchestrator.checkpoints import adapters
from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.files import (
    Header,
    JsonFile,
    file_of,
    has_file,
    read_headers,
    read_json,
)

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Reads only tensors of the pickles (weights_only), including shards.
_CONVERT = (
    "import sys, torch, pathlib as p; from safetensors.torch import save_file;"
    " d = p.Path(sys.argv[1]); t = {k: v.clone().contiguous() for f in sorted(d.glob(sys.argv[2]))"
    " for k, v in torch.load(f, map_location='cpu', weights_only=True).items()};"
    " save_file(t, d / sys.argv[3], {'format': 'pt'})"
)


def read_config(checkpoint: str) -> JsonFile:
    """Read a checkpoint's config.json; empty if there is none (only a tokenizer).

    For an adapter, that of its base with the architecture that the adapter was trained as.

    Raises:
        ValueError: it is not a JSON object, or as ``adapter_of``.
    """
    adapter = adapter_of(checkpoint)
    if adapter is None:
        return read_json(checkpoint, "config.json")
    config = read_json(adapter.base, "config.json")
    names = adapter.architectures(config.get("architectures") or [])
    return {**config, "architectures": names}


def read_generation_config(checkpoint: str) -> JsonFile:
    """Read a checkpoint's generation_config.json, or its adapter base's; empty if there is none.

    Raises:
        ValueError: it is not a JSON object, or as ``adapter_of``.
    """
    config = read_json(checkpoint, "generation_config.json")
    adapter = None if config else adapter_of(checkpoint)
    return config if adapter is None else read_json(adapter.base, "generation_config.json")


@dataclass(frozen=True)
class StoredTensor:
    """The location of a tensor: checkpoint folder or hub name, file, and name in the file."""

    checkpoint: str
    file: str
    key: str


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint folder or hub name, by name.

    For an adapter, those of its base, replaced by the ones that it saved in full.

    Attributes:
        checkpoint: folder or hub name.
        stored: location of each tensor by name.
    """

    checkpoint: str
    stored: Mapping[str, StoredTensor]
    _read: dict[tuple[str, str], dict[str, Header]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, checkpoint: str) -> "Weights":
        """Read the names of a checkpoint's tensors.

        Raises:
            ValueError: the checkpoint has no safetensors weights, or they are damaged.
        """
        if (adapter := adapter_of(checkpoint)) is None:
            files = _files(checkpoint)
            return cls(
                checkpoint, {n: StoredTensor(checkpoint, file, n) for n, file in files.items()}
            )
        if not has_file(checkpoint, adapters.WEIGHTS):
            raise ValueError(_no_safetensors(checkpoint, adapters.WEIGHTS, adapters.PICKLED))
        saved = {
            name: StoredTensor(checkpoint, adapters.WEIGHTS, key)
            for name, key in adapter.saved.items()
        }
        return cls(checkpoint, {**cls.of(adapter.base).stored, **saved})

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self.stored)

    def header(self, name: str) -> Header:
        """Return the dtype and shape of a tensor, without reading it.

        Raises:
            ValueError: the file that should hold it is missing, damaged or does not hold it.
        """
        location = self.stored[name]
        if (location.checkpoint, location.file) not in self._read:
            try:
                self._read[location.checkpoint, location.file] = read_headers(
                    location.checkpoint, location.file
                )
            except ValueError as error:
                reason = f"; {_INDEX} names it for {name}" if location.file != _SINGLE else ""
                raise ValueError(f"{error}{reason}") from error
        header = self._read[location.checkpoint, location.file].get(location.key)
        if header is None:
            raise ValueError(
                f"{location.checkpoint}: {location.file} does not hold {location.key}, which"
                f" {_INDEX} says it does"
            )
        return header

    @cached_property
    def parameters(self) -> int:
        """Number of elements of all tensors, from their shapes."""
        return sum(prod(self.shape(name)) for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return self.header(name).shape

    def tensor(self, name: str) -> Tensor:
        """Read a tensor, in its stored dtype.

        Raises:
            ValueError: its file is missing.
        """
        location = self.stored[name]
        path = file_of(location.checkpoint, location.file)
        if path is None:
            raise ValueError(f"{location.checkpoint}: {location.file} with {name} is missing")
        with safe_open(str(path), framework="pt") as tensors:
            value: Tensor = tensors.get_tensor(location.key)
            return value


def _files(checkpoint: str) -> dict[str, str]:
    """Return the file of each tensor by name; a single file takes precedence over shards."""
    if has_file(checkpoint, _SINGLE):
        return dict.fromkeys(read_headers(checkpoint, _SINGLE), _SINGLE)
    if file_of(checkpoint, _INDEX) is None:
        raise ValueError(_no_safetensors(checkpoint, f"{_SINGLE} or {_INDEX}", *_PICKLED))
    files = read_json(checkpoint, _INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{checkpoint}: {_INDEX} has no weight_map of tensors to files")
    return files


def _no_safetensors(checkpoint: str, expected: str, *pickled: str) -> str:
    """Return the error message for a checkpoint without safetensors: how to convert pickles."""
    text = f"{checkpoint}: no weights as safetensors ({expected})"
    if not any(has_file(checkpoint, name) for name in pickled):
        return text
    text += f"; its {pickled[0].removesuffix('.bin')}*.bin may run code when it is read; valid: "
    folder = checkpoint
    if not Path(checkpoint).is_dir():
        folder = checkpoint.replace("/", "--")
        text += (
            f"a converted local copy: give {folder} as the checkpoint after the command"
            f" hf download {checkpoint} --local-dir {folder} && "
        )
    else:
        text += "convert it once by: "
    stem = pickled[0].removesuffix(".bin")
    target = expected.split()[0]
    return text + shlex.join([sys.executable, "-c", _CONVERT, folder, f"{stem}*.bin", target])
