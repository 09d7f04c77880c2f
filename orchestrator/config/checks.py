"""Checks that the config classes (`tree.py`) do not make.

They are of data files, the DeepSpeed file, checkpoints, the engine and model names.
"""

from collections.abc import Collection
from pathlib import Path

from orchestrator.config.deepspeed_file import check_deepspeed
from orchestrator.config.engine_choice import vllm_unsupported_reason
from orchestrator.config.errors import ConfigError, reason_of, shown
from orchestrator.config.output_paths import check_file, is_folder
from orchestrator.config.tree import BASE_MODELS, Config

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
HUB_S = 5.0  # seconds in which the hub must answer
DESCRIBED_BY = ("config.json", "adapter_config.json")  # a model, a LoRA adapter


def check_files(config: Config) -> None:
    """Raise ConfigError for a data or DeepSpeed file that does not exist or is not valid."""
    check_deepspeed(config.training)
    for name in config.data.file_fields:
        path = getattr(config.data, name)
        if not isinstance(path, str):
            continue
        from orchestrator.data.rows import SUFFIXES, VALID  # imports pyarrow

        check_file(f"data.{name}", path, SUFFIXES, VALID)


def check_engine(config: Config) -> None:
    """Raise ConfigError if vLLM cannot run the search methods of the config."""
    if config.search.engine != "vllm":
        return
    if not config.cluster.search_actors:
        raise ConfigError(
            "cluster.search_actors = 0: search.engine vllm runs in search actors; valid: at least 1"
        )
    for entry in config.search.entries:
        if reason := vllm_unsupported_reason(entry.method.name):
            raise ConfigError(
                f"search.engine = 'vllm': {reason}; valid: auto, transformers, or {entry.without}"
            )


def check_checkpoints_exist(config: Config) -> None:
    """Raise ConfigError for a checkpoint that is neither a folder nor on the hub."""
    named = {f"models.{name}": getattr(config.models, name) for name in BASE_MODELS}
    for part in ("checkpoint", "base"):
        named |= {f"variants.{n}.{part}": getattr(v, part) for n, v in config.variants.items()}
    for field, name in named.items():
        if name is not None:
            check_checkpoint(field, name)


def check_model_name(config: Config, model: str) -> None:
    """Raise ConfigError for the name of a model that this config does not train."""
    checkpoints = {
        name: f"models.{name}" for name in BASE_MODELS if getattr(config.models, name) is not None
    }
    checkpoints |= {
        n: f"variants.{n}.checkpoint" for n, v in config.variants.items() if v.checkpoint
    }
    ratios = [n for n, v in config.variants.items() if not v.is_trained and n not in checkpoints]
    valid = [name for name in (*BASE_MODELS, *config.variants) if name not in checkpoints]
    valid = [name for name in valid if name not in ratios]
    if model in checkpoints:
        reason = f"is not trained, since {checkpoints[model]} sets a checkpoint"
    elif model in ratios:
        reason = "is not trained: a density ratio of two existing models"
    elif model not in valid:
        reason = "no such model"
    else:
        return
    raise ConfigError(f"{model}: {reason}; valid: {', '.join(valid)}")


def check_splits_not_empty(config: Config, trained: Collection[str]) -> None:
    """Raise ConfigError if a model that is trained has an empty split (a share of 0)."""
    for name in BASE_MODELS:
        if name in trained and getattr(config.data, f"{name}_share", None) == 0:
            raise ConfigError(
                f"data.{name}_share = 0: leaves no pairs to train the {name} on; valid: more than"
                f" 0, or set models.{name} to a checkpoint"
            )


def reads_checkpoints(config: Config) -> bool:
    """Whether checking the config needs the files of checkpoints or tokenizers."""
    search, models = config.search, config.models
    variants = config.variants.values()
    return (
        any(getattr(models, name) is not None for name in BASE_MODELS)
        or any(v.checkpoint or v.base or v.aggregation for v in variants)
        or any(entry.method.step_delimiter is not None for entry in search.entries)
        or search.engine == "vllm"
        or search.dtype != "float32"
        or config.cluster.reward_cache_mib is not None
    )


def check_checkpoint(field: str, name: str) -> None:
    """Raise ConfigError, which names ``field``, for a checkpoint that does not exist."""
    named = f"{field} = {shown(name)}"
    valid = "valid: a folder with config.json and safetensors, or a hub name like org/model"
    if is_folder(name):
        folder = Path(name).expanduser()
        if not any((folder / file).is_file() for file in DESCRIBED_BY):
            described = " nor ".join(DESCRIBED_BY)
            raise ConfigError(f"{named}: the folder has neither {described}; {valid}")
        if any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            return
        if any(folder.glob("*.bin")):
            return  # the check of its weights says how to convert them
        raise ConfigError(f"{named}: the folder has no *.safetensors; {valid}")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(f"{named}: no such folder; {valid}")
    if missing := _missing_on_the_hub(name):
        raise ConfigError(f"{named}: {missing}; {valid}")


def _missing_on_the_hub(name: str) -> str:
    """Return why a model is neither on the hub nor in its cache; "" if it is there.

    A hub that does not answer is tried once, since a download would retry for half a minute.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    nowhere = "not found on the hub or in its cache"
    try:
        if any(isinstance(try_to_load_from_cache(name, file), str) for file in DESCRIBED_BY):
            return ""
        for file in DESCRIBED_BY:
            try:
                get_hf_file_metadata(hf_hub_url(name, file), timeout=HUB_S)
            except EntryNotFoundError:
                continue
            return ""
    except OfflineModeIsEnabled:
        return "not in the hub's cache, and HF_HUB_OFFLINE is set"
    except GatedRepoError:
        return "gated on the hub, and HF_TOKEN has no access to it"
    except (RepositoryNotFoundError, HFValidationError):
        return nowhere
    except Exception as error:  # any error of the servers, the network or the library
        return f"not in the hub's cache, and the hub does not answer ({reason_of(error)})"
    return nowhere
