"""LoRA adapters as PEFT writes them: a folder with adapter_config.json, and its base model.

An adapter is treated as a full checkpoint: the base's config and weights, with the modules that the
adapter saved in full (a reward head) instead of the base's. At loading it is merged into the base's
weights, so that every engine gets a plain model.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from orchestrator.checkpoints.files import (
    Header,
    as_value_error,
    file_of,
    has_file,
    read_headers,
    read_json,
)

if TYPE_CHECKING:
    from peft import PeftConfig

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_MODEL_FILES = ("model.safetensors", "model.safetensors.index.json")
PREFIX = "base_model.model."  # prefix of every weight name in an adapter's file
_CLASSES = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
_HEADS = ("classifier", "score")
_LANGUAGE_MODEL = re.compile(r"(ForCausalLM|LMHeadModel)$")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        checkpoint: its folder or hub name.
        base: folder or hub name of the model that it adapts.
        task: PEFT's task type (SEQ_CLS, CAUSAL_LM); None if not stated.
        modules: names of the modules that it saved in full (PEFT's modules_to_save).
    """

    checkpoint: str
    base: str
    task: str | None
    modules: tuple[str, ...]

    @cached_property
    def headers(self) -> dict[str, Header]:
        """The headers of its tensors, by their names in its file.

        Raises:
            ValueError: the file is missing or damaged.
        """
        return read_headers(self.checkpoint, WEIGHTS)

    @property
    def saved(self) -> dict[str, str]:
        """Weights that it saved in full: names in the model, and names in its file."""
        names = {key.removeprefix(PREFIX): key for key in self.headers}
        return {name: key for name, key in names.items() if {*name.split(".")} & {*self.modules}}

    def architectures(self, names: list[str]) -> list[str]:
        """Return its base's architecture names, converted to the class that it was trained as."""
        ending = _CLASSES.get(str(self.task))
        return names if ending is None else [_LANGUAGE_MODEL.sub(ending, name) for name in names]


def adapter_of(checkpoint: str) -> Adapter | None:
    """Return the adapter at a checkpoint; None if that is a model.

    Raises:
        ValueError: the adapter's config is damaged, it is of another type than LoRA, its base is
            not stated, does not exist, or is an adapter, or the folder also holds a model.
    """
    if not has_file(checkpoint, CONFIG):
        return None
    settings = read_json(checkpoint, CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ValueError(
            f"{checkpoint}: {CONFIG}: peft_type = {settings.get('peft_type')!r}; valid: LORA"
        )
    for name in _MODEL_FILES:
        if has_file(checkpoint, name):
            raise ValueError(
                f"{checkpoint}: it has both a model ({name}) and an adapter ({CONFIG}); valid: a"
                " folder with one of them"
            )
    base = _base(checkpoint, settings)
    if has_file(base, CONFIG):
        raise ValueError(f"{checkpoint}: its base {base} is an adapter itself; valid: a model")
    task, modules = settings.get("task_type"), settings.get("modules_to_save") or ()
    # PEFT always saves the head of a classifier; older versions do not list it.
    heads = _HEADS if task in _CLASSES else ()
    return Adapter(checkpoint, base, task, tuple(dict.fromkeys((*modules, *heads))))


def base_of(checkpoint: str) -> str:
    """Return the checkpoint with the config and most weights: an adapter's base, or itself."""
    adapter = adapter_of(checkpoint)
    return checkpoint if adapter is None else adapter.base


def with_adapter(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """Merge an adapter into a model of its base's weights; no PEFT module remains.

    Raises:
        ValueError: PEFT cannot load the adapter on this model.
    """
    from peft import PeftModel

    with (
        as_value_error(f"{adapter.checkpoint}: not an adapter of {adapter.base}"),
        _peft_is_quiet(),
    ):
        config = _peft_config(model, adapter)
        adapted = PeftModel.from_pretrained(
            model, adapter.checkpoint, config=config, torch_device="cpu"
        )
        merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def adapter_shapes(model: PreTrainedModel, adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Return the shapes that an adapter's file must hold for this model, by name.

    Adds the adapter's modules to ``model``; on the meta device they take no memory.

    Raises:
        ValueError: the adapter's config does not fit the model.
    """
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    with (
        as_value_error(f"{adapter.checkpoint}: not an adapter of {adapter.base}"),
        _peft_is_quiet(),
    ):
        adapted = get_peft_model(model, _peft_config(model, adapter))
        tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _peft_config(model: PreTrainedModel, adapter: Adapter) -> "PeftConfig":
    """Return the adapter's config for this model, independent of the class it was trained as."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(adapter.checkpoint)
    parts = {part for name, _ in model.named_modules() for part in name.split(".")}
    config.task_type = None
    config.modules_to_save = [name for name in adapter.modules if name in parts] or None
    return config


def _base(checkpoint: str, settings: Mapping[str, object]) -> str:
    """Return the base that an adapter's config names.

    A relative path is resolved against the adapter's folder and its parents, so that it does not
    depend on the current folder.
    """
    name, field = settings.get("base_model_name_or_path"), f"{CONFIG}: base_model_name_or_path"
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{checkpoint}: {field} = {name!r}: not the name of a base model; valid: a folder or"
            " hub name"
        )
    if Path(checkpoint).is_dir():
        folder = Path(checkpoint).resolve()
        for parent in (folder, *folder.parents):
            path = parent / Path(name).expanduser()
            if path.is_dir() and path != folder:
                return str(path.resolve())
    if settings.get("revision") not in (None, "main"):
        raise ValueError(
            f"{checkpoint}: {CONFIG}: revision = {settings['revision']!r} of the base {name}: only"
            " the newest is loaded; valid: the base's folder of that revision as"
            " base_model_name_or_path"
        )
    is_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if is_local or not _on_the_hub(name):
        hub = "" if is_local else ", and not found on the hub or in its cache"
        raise ValueError(
            f"{checkpoint}: {field} = {name!r}: no such folder{hub}; valid: a folder, absolute or"
            " relative to the adapter's folder or one above it, or a hub name like org/model"
        )
    return name


def _on_the_hub(name: str) -> bool:
    try:
        return file_of(name, "config.json") is not None
    except (OSError, ValueError):  # offline and not cached, or no such name
        return False


@contextmanager
def _peft_is_quiet() -> Iterator[None]:
    """Suppress PEFT's warnings of unnamed bases and tied weights; errors are checked here."""
    with warnings.catch_warnings(action="ignore"):
        yield
