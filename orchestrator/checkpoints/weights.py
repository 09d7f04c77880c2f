"""What a checkpoint's own files say: its config, and the names, shapes and dtypes of its weights.

Plain reading of JSON and safetensors headers: no model is built, no weight is read that nobody
asked for. Of a checkpoint in shards the index alone is read for the names.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from orchestrator.checkpoints import adapters
from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.files import (
    Header,
    file_of,
    has_file,
    read_headers,
    read_json,
)

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Reads tensors and nothing else of the pickles (weights_only), shards too.
_CONVERT = (
    "import sys, torch, pathlib as p; from safetensors.torch import save_file;"
    " d = p.Path(sys.argv[1]); t = {k: v.clone().contiguous() for f in sorted(d.glob(sys.argv[2]))"
    " for k, v in torch.load(f, map_location='cpu', weights_only=True).items()};"
    " save_file(t, d / sys.argv[3], {'format': 'pt'})"
)


def read_config(checkpoint: str) -> dict[str, Any]:
    """A checkpoint's config.json; empty where there is none (a tokenizer alone).

    An adapter's is its base's, with the architecture that it was trained as.

    Raises:
        ValueError: it is not a JSON object, or as ``adapter_of``.
    """
    adapter = adapter_of(checkpoint)
    if adapter is None:
        return read_json(checkpoint, "config.json")
    config = read_json(adapter.base, "config.json")
    names = adapter.architectures(config.get("architectures") or [])
    return {**config, "architectures": names}


def read_generation_config(checkpoint: str) -> dict[str, Any]:
    """A checkpoint's generation_config.json, an adapter's or its base's; empty where there is none.

    Raises:
        ValueError: it is not a JSON object, or as ``adapter_of``.
    """
    config = read_json(checkpoint, "generation_config.json")
    adapter = None if config else adapter_of(checkpoint)
    return config if adapter is None else read_json(adapter.base, "generation_config.json")


@dataclass(frozen=True)
class Stored:
    """Where a tensor is: checkpoint folder or hub name, its file, and its name there."""

    checkpoint: str
    file: str
    key: str


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint folder or hub name, by name.

    An adapter's are its base's, and in their place those that it saved whole.

    Attributes:
        checkpoint: folder or hub name.
        stored: tensor name to where it is.
    """

    checkpoint: str
    stored: Mapping[str, Stored]
    _read: dict[tuple[str, str], dict[str, Header]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, checkpoint: str) -> "Weights":
        """Reads which tensors there are.

        Raises:
            ValueError: the checkpoint has no safetensors weights, or they are damaged.
        """
        if (adapter := adapter_of(checkpoint)) is None:
            files = _files(checkpoint)
            return cls(checkpoint, {n: Stored(checkpoint, file, n) for n, file in files.items()})
        if not has_file(checkpoint, adapters.WEIGHTS):
            raise ValueError(_no_safetensors(checkpoint, adapters.WEIGHTS, adapters.PICKLED))
        saved = {
            name: Stored(checkpoint, adapters.WEIGHTS, key) for name, key in adapter.saved.items()
        }
        return cls(checkpoint, {**cls.of(adapter.base).stored, **saved})

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self.stored)

    def header(self, name: str) -> Header:
        """The dtype and the shape of one tensor, without reading it.

        Raises:
            ValueError: the file that should hold it is missing, damaged or does not hold it.
        """
        at = self.stored[name]
        if (at.checkpoint, at.file) not in self._read:
            try:
                self._read[at.checkpoint, at.file] = read_headers(at.checkpoint, at.file)
            except ValueError as error:
                named = f"; {_INDEX} names it for {name}" if at.file != _SINGLE else ""
                raise ValueError(f"{error}{named}") from error
        found = self._read[at.checkpoint, at.file].get(at.key)
        if found is None:
            raise ValueError(
                f"{at.checkpoint}: {at.file} does not hold {at.key}, which {_INDEX} says it does"
            )
        return found

    @cached_property
    def parameters(self) -> int:
        """Numbers in all tensors, from their shapes."""
        return sum(prod(self.shape(name)) for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, without reading it."""
        return self.header(name).shape

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype in which it is stored."""
        at = self.stored[name]
        path = file_of(at.checkpoint, at.file)
        if path is None:
            raise ValueError(f"{at.checkpoint}: {at.file} with {name} is missing")
        with safe_open(str(path), framework="pt") as tensors:
            value: Tensor = tensors.get_tensor(at.key)
            return value


def _files(checkpoint: str) -> dict[str, str]:
    """The name of each tensor, and of the file that holds it; one file comes before shards."""
    if has_file(checkpoint, _SINGLE):
        return dict.fromkeys(read_headers(checkpoint, _SINGLE), _SINGLE)
    if file_of(checkpoint, _INDEX) is None:
        raise ValueError(_no_safetensors(checkpoint, f"{_SINGLE} or {_INDEX}", *_PICKLED))
    files = read_json(checkpoint, _INDEX).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f"{checkpoint}: {_INDEX} has no weight_map of tensors to files")
    return files


def _no_safetensors(checkpoint: str, wanted: str, *pickled: str) -> str:
    """What to say of a checkpoint without safetensors: how its pickles are converted, if any."""
    text = f"{checkpoint}: no weights as safetensors ({wanted})"
    if not any(has_file(checkpoint, name) for name in pickled):
        return text
    text += f"; its {pickled[0].removesuffix('.bin')}*.bin may run code when it is read; valid: "
    folder = checkpoint
    if not Path(checkpoint).is_dir():
        folder = checkpoint.replace("/", "--")
        text += f"a folder of it (hf download {checkpoint} --local-dir {folder}), converted by: "
    else:
        text += "convert it once by: "
    stem = pickled[0].removesuffix(".bin")
    target = wanted.split()[0]
    return text + shlex.join([sys.executable, "-c", _CONVERT, folder, f"{stem}*.bin", target])
