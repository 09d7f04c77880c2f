"""LoRA adapters as PEFT writes them: a folder with adapter_config.json, and the base that it names.

An adapter is read as the checkpoint that it makes of its base: the base's config and weights, with
the modules that the adapter saved whole (a reward head) in place of the base's. At loading it is
merged into the base's weights, so that every engine sees a plain model.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from orchestrator.checkpoints.files import (
    Header,
    file_of,
    has_file,
    naming,
    read_headers,
    read_json,
)

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_WHOLE_MODEL = ("model.safetensors", "model.safetensors.index.json")
PREFIX = "base_model.model."  # in front of every name in an adapter's file
_CLASSES = {"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification"}
_HEADS = ("classifier", "score")
_LANGUAGE_MODEL = re.compile(r"(ForCausalLM|LMHeadModel)$")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        checkpoint: its folder or hub name.
        base: folder or hub name of the model that it adapts.
        task: what PEFT calls its task (SEQ_CLS, CAUSAL_LM); None where it was not said.
        modules: names of the modules that it saved whole (PEFT's modules_to_save).
    """

    checkpoint: str
    base: str
    task: str | None
    modules: tuple[str, ...]

    @cached_property
    def headers(self) -> dict[str, Header]:
        """Its tensors by their names in its file.

        Raises:
            ValueError: the file is missing or damaged.
        """
        return read_headers(self.checkpoint, WEIGHTS)

    @property
    def saved(self) -> dict[str, str]:
        """What it saved whole: names of the model's weights, and their names in its file."""
        names = {key.removeprefix(PREFIX): key for key in self.headers}
        return {name: key for name, key in names.items() if {*name.split(".")} & {*self.modules}}

    def architectures(self, names: list[str]) -> list[str]:
        """The architectures of its base as those of the model that it was trained as."""
        ending = _CLASSES.get(str(self.task))
        return names if ending is None else [_LANGUAGE_MODEL.sub(ending, name) for name in names]


def adapter_of(checkpoint: str) -> Adapter | None:
    """The adapter at a checkpoint; None where it is a model.

    Raises:
        ValueError: the adapter's config is damaged, it is of another type than LoRA, its base is
            not said, is not there, or is an adapter itself, or the folder holds a model as well.
    """
    if not has_file(checkpoint, CONFIG):
        return None
    settings = read_json(checkpoint, CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ValueError(
            f"{checkpoint}: {CONFIG}: peft_type = {settings.get('peft_type')!r}; valid: LORA"
        )
    for name in _WHOLE_MODEL:
        if has_file(checkpoint, name):
            raise ValueError(
                f"{checkpoint}: it has both a model ({name}) and an adapter ({CONFIG}); valid: a"
                " folder with one of them"
            )
    base = _base(checkpoint, settings)
    if has_file(base, CONFIG):
        raise ValueError(f"{checkpoint}: its base {base} is an adapter itself; valid: a model")
    task, modules = settings.get("task_type"), settings.get("modules_to_save") or ()
    # PEFT saves the head of a classifier without being asked; older versions did not say so.
    heads = _HEADS if task in _CLASSES else ()
    return Adapter(checkpoint, base, task, tuple(dict.fromkeys((*modules, *heads))))


def base_of(checkpoint: str) -> str:
    """Where a checkpoint's config and most of its weights are: an adapter's base, or itself."""
    adapter = adapter_of(checkpoint)
    return checkpoint if adapter is None else adapter.base


def with_adapter(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The model on its base's weights with the adapter merged into them: no module of PEFT's stays.

    Raises:
        ValueError: PEFT cannot load the adapter on this model.
    """
    from peft import PeftModel

    with naming(f"{adapter.checkpoint}: not an adapter of {adapter.base}"), _peft_is_quiet():
        config = _peft_config(model, adapter)
        adapted = PeftModel.from_pretrained(
            model, adapter.checkpoint, config=config, torch_device="cpu"
        )
        merged: PreTrainedModel = adapted.merge_and_unload()
    return merged


def adapter_shapes(model: PreTrainedModel, adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """The tensors that an adapter's file must hold for this model, by their names there.

    ``model`` gets the adapter's modules; on the meta device none of them takes memory.

    Raises:
        ValueError: the adapter's config does not fit the model.
    """
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    with naming(f"{adapter.checkpoint}: not an adapter of {adapter.base}"), _peft_is_quiet():
        adapted = get_peft_model(model, _peft_config(model, adapter))
        tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _peft_config(model: PreTrainedModel, adapter: Adapter) -> Any:
    """The adapter's config for this model, whatever class it was trained as."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(adapter.checkpoint)
    parts = {part for name, _ in model.named_modules() for part in name.split(".")}
    config.task_type = None
    config.modules_to_save = [name for name in adapter.modules if name in parts] or None
    return config


def _base(checkpoint: str, settings: Mapping[str, Any]) -> str:
    """The base that an adapter's config names.

    A relative path is looked for in the adapter's folder and in the folders above it: a path that
    was relative to where the adapter was trained means the same to processes in other folders.
    """
    name, field = settings.get("base_model_name_or_path"), f"{CONFIG}: base_model_name_or_path"
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"{checkpoint}: {field} = {name!r}: names no base; valid: a folder or hub name"
        )
    if Path(checkpoint).is_dir():
        folder = Path(checkpoint).resolve()
        for above in (folder, *folder.parents):
            path = above / Path(name).expanduser()
            if path.is_dir() and path != folder:
                return str(path.resolve())
    if settings.get("revision") not in (None, "main"):
        raise ValueError(
            f"{checkpoint}: {CONFIG}: revision = {settings['revision']!r} of the base {name}: only"
            " the newest is loaded; valid: the base's folder of that revision as"
            " base_model_name_or_path"
        )
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or not _on_the_hub(name):
        raise ValueError(
            f"{checkpoint}: {field} = {name!r}: the base is not there; valid: a folder, absolute or"
            " relative to the adapter's folder or one above it, or a hub name like org/model"
        )
    return name


def _on_the_hub(name: str) -> bool:
    try:
        return file_of(name, "config.json") is not None
    except (OSError, ValueError):  # offline and not in the cache, or no such name
        return False


@contextmanager
def _peft_is_quiet() -> Iterator[None]:
    """PEFT warns of a base that has no name and of tied weights; what matters is checked here."""
    with warnings.catch_warnings(action="ignore"):
        yield
