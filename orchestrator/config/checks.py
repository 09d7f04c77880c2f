"""Checks beside the tree's own: files and checkpoints are there, what is asked for is trained."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from orchestrator.config.load import ROOT, ConfigError
from orchestrator.config.tree import TAKEN, Config
from orchestrator.data.rows import SUFFIXES, VALID

# Fields of DeepSpeed's file that a training sets by itself, and what decides them.
DEEPSPEED_OURS = {
    "optimizer.params.lr": "the learning_rate of each training decides",
    "scheduler": "the learning rate falls linearly after the warmup_steps of each training",
    "train_batch_size": "the batch_size of each training decides",
    "train_micro_batch_size_per_gpu": "training.micro_batch_tokens decides",
    "gradient_accumulation_steps": "training.micro_batch_tokens decides",
}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
DESCRIBED_BY = ("config.json", "adapter_config.json")  # of a model, of a LoRA adapter


def check_files(config: Config) -> None:
    """Raises ConfigError for a data or DeepSpeed file that is not there."""
    data = config.data.model_dump()
    for name in ("pairs", "demonstrations", "test"):
        path = data.get(name)
        if not isinstance(path, str):
            continue
        valid = f"valid: {VALID}"
        if not path.endswith(SUFFIXES):
            raise ConfigError(f"data.{name} = {path!r}: its format is not known; {valid}")
        if "://" not in path and not Path(path).expanduser().is_file():
            raise ConfigError(f"data.{name} = {path!r}: no such file; {valid}")
    _check_deepspeed(config.training.deepspeed, config.training.zero_stage)


def _check_deepspeed(named: str, stage: int) -> None:
    file = Path(named) if Path(named).is_file() else ROOT / named
    if not file.is_file():
        raise ConfigError(f"training.deepspeed = {named!r}: no such file; valid: a JSON file")
    try:
        content = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"training.deepspeed = {named!r}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"training.deepspeed = {named!r}: valid: a JSON object of settings")
    _check_ours(named, content)
    zero = content.get("zero_optimization", {})
    for part, least in {"offload_param": 3, "offload_optimizer": 1}.items():
        if part in zero and stage < least:
            raise ConfigError(
                f"training.zero_stage = {stage}: {named} has {part}, which needs stage {least};"
                f" valid: at least {least}, or another training.deepspeed"
            )
    if zero.get("stage", stage) != stage:
        raise ConfigError(
            f"training.deepspeed = {named!r}: its zero_optimization.stage = {zero['stage']!r} has"
            f" no effect: training.zero_stage = {stage} decides; valid: the same in both, or a"
            " file without it"
        )


def _check_ours(named: str, content: dict[str, Any]) -> None:
    """Raises ConfigError for a field of DeepSpeed's file that the training sets itself."""
    for field, ours in DEEPSPEED_OURS.items():
        value: Any = content
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            raise ConfigError(
                f"training.deepspeed = {named!r}: its {field} = {value!r} has no effect: {ours};"
                f" valid: a file without {field}"
            )


def check_checkpoints(config: Config) -> None:
    """Raises ConfigError for a checkpoint that is no folder with safetensors and not on the hub."""
    named = {f"models.{name}": getattr(config.models, name) for name in TAKEN}
    for part in ("checkpoint", "base"):
        named |= {f"variants.{n}.{part}": getattr(v, part) for n, v in config.variants.items()}
    for field, name in named.items():
        if name is not None:
            check_checkpoint(field, name)


def check_model(config: Config, model: str) -> None:
    """Raises ConfigError for the name of a model that this config does not train."""
    given = {name: f"models.{name}" for name in TAKEN if getattr(config.models, name) is not None}
    given |= {n: f"variants.{n}.checkpoint" for n, v in config.variants.items() if v.checkpoint}
    ratios = [n for n, v in config.variants.items() if not v.is_trained and n not in given]
    valid = [name for name in (*TAKEN, *config.variants) if name not in given]
    valid = [name for name in valid if name not in ratios]
    if model in given:
        reason = f"given as a checkpoint by {given[model]}, and not trained"
    elif model in ratios:
        reason = "a density ratio of two models that are there, and not trained"
    elif model not in valid:
        reason = "no such model"
    else:
        return
    raise ConfigError(f"{model}: {reason}; valid: {', '.join(valid)}")


def check_shares(config: Config, trained: Collection[str]) -> None:
    """Raises ConfigError where a model that is trained has an empty split: a share of 0."""
    for name in TAKEN:
        if name in trained and getattr(config.data, f"{name}_share", None) == 0:
            raise ConfigError(
                f"data.{name}_share = 0: leaves no pairs to train the {name} on;"
                f" valid: over 0, or a checkpoint as models.{name}"
            )


def check_checkpoint(field: str, name: str) -> None:
    """Raises ConfigError, which names ``field``, for a checkpoint that is not there."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in DESCRIBED_BY):
            raise ConfigError(f"{field} = {name!r}: the folder has no config.json")
        if any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            return
        if any(folder.glob("*.bin")):
            return  # how it is converted is said where its weights are looked at
        raise ConfigError(f"{field} = {name!r}: the folder has no *.safetensors")
    valid = "valid: a folder with config.json and safetensors, or a hub name like org/model"
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(f"{field} = {name!r}: no such folder; {valid}")
    if not _is_on_the_hub(name):
        raise ConfigError(f"{field} = {name!r}: not found on the hub or in its cache; {valid}")


def _is_on_the_hub(name: str) -> bool:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    for file in DESCRIBED_BY:
        try:
            hf_hub_download(name, file)
        except (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            OSError,
        ):
            continue
        return True
    return False
