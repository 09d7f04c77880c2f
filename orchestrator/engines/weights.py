"""What a checkpoint's own files say: its config, and the names and shapes of its weights.

Plain reading of JSON and safetensors: no model is built, no weight is read that nobody asked for.
Of a hub name with an index of shards only the index is fetched for the names.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(checkpoint: str) -> dict[str, Any]:
    """A checkpoint's config.json; empty where there is none (a tokenizer alone)."""
    found = _file(checkpoint, "config.json")
    return dict(json.loads(found.read_text())) if found else {}


@dataclass(frozen=True)
class Weights:
    """The tensors of a checkpoint folder or hub name, by name.

    Attributes:
        checkpoint: folder or hub name.
        files: tensor name to the name of the safetensors file that holds it.
    """

    checkpoint: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: str) -> "Weights":
        """Reads which tensors there are.

        Raises:
            ValueError: the checkpoint has no safetensors weights.
        """
        if index := _file(checkpoint, _INDEX):
            return cls(checkpoint, json.loads(index.read_text())["weight_map"])
        if whole := _file(checkpoint, _SINGLE):
            with safe_open(str(whole), framework="pt") as tensors:
                return cls(checkpoint, dict.fromkeys(tensors.keys(), _SINGLE))
        raise ValueError(f"{checkpoint}: no weights as safetensors ({_SINGLE} or {_INDEX})")

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self.files)

    @cached_property
    def parameters(self) -> int:
        """Numbers in all tensors, from their shapes."""
        return sum(prod(self.shape(name)) for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, without reading it."""
        with safe_open(str(self._path(name)), framework="pt") as tensors:
            return tuple(tensors.get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype in which it is stored."""
        with safe_open(str(self._path(name)), framework="pt") as tensors:
            found: Tensor = tensors.get_tensor(name)
            return found

    def _path(self, name: str) -> Path:
        found = _file(self.checkpoint, self.files[name])
        if found is None:
            raise ValueError(f"{self.checkpoint}: {self.files[name]} with {name} is missing")
        return found


def _file(checkpoint: str, name: str) -> Path | None:
    """A file of a folder or hub name (fetched into the hub's cache); None where there is none."""
    found = cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False)
    return Path(found) if found else None
