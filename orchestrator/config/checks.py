"""Checks beside the tree's own: files and checkpoints are there, what is asked for is trained."""

from collections.abc import Collection
from pathlib import Path

from orchestrator.config.deepspeed_file import check_deepspeed
from orchestrator.config.errors import ConfigError, reason_of, shown
from orchestrator.config.output_paths import check_uri, is_file, is_folder
from orchestrator.config.tree import TAKEN, Config
from orchestrator.decoding.methods import not_by_vllm

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
HUB_S = 5.0  # given to the hub to answer
DESCRIBED_BY = ("config.json", "adapter_config.json")  # of a model, of a LoRA adapter


def check_files(config: Config) -> None:
    """Raises ConfigError for a data or DeepSpeed file that is not there."""
    check_deepspeed(config.training)
    for name in config.data.file_fields:
        path = getattr(config.data, name)
        if not isinstance(path, str):
            continue
        from orchestrator.data.rows import SUFFIXES, VALID  # imports pyarrow: where there are files

        valid = f"valid: {VALID}"
        if not path.endswith(SUFFIXES):
            raise ConfigError(f"data.{name} = {shown(path)}: its format is not known; {valid}")
        if "://" in path:
            check_uri(f"data.{name}", path)
        elif not is_file(path):
            raise ConfigError(f"data.{name} = {shown(path)}: no such file; {valid}")


def check_engine(config: Config) -> None:
    """Raises ConfigError where vLLM is asked for what it does not run, whatever the models."""
    if config.search.engine != "vllm":
        return
    if not config.cluster.search_actors:
        raise ConfigError(
            "cluster.search_actors = 0: search.engine vllm runs in search actors; valid: at least 1"
        )
    for entry in config.search.entries:
        if reason := not_by_vllm(entry.method.name):
            raise ConfigError(
                f"search.engine = 'vllm': {reason}; valid: auto, transformers, or {entry.without}"
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


def reads_checkpoints(config: Config) -> bool:
    """Whether checkpoints or tokenizers must be looked into to know that a config is good."""
    search, models = config.search, config.models
    variants = config.variants.values()
    return (
        any(getattr(models, name) is not None for name in TAKEN)
        or any(v.checkpoint or v.base or v.aggregation for v in variants)
        or any(entry.method.step_delimiter is not None for entry in search.entries)
        or search.engine == "vllm"
        or search.dtype != "float32"
        or config.cluster.reward_cache_mib is not None
    )


def check_checkpoint(field: str, name: str) -> None:
    """Raises ConfigError, which names ``field``, for a checkpoint that is not there."""
    named = f"{field} = {shown(name)}"
    if is_folder(name):
        folder = Path(name).expanduser()
        if not any((folder / file).is_file() for file in DESCRIBED_BY):
            raise ConfigError(f"{named}: the folder has no config.json")
        if any(any(folder.glob(pattern)) for pattern in WEIGHTS):
            return
        if any(folder.glob("*.bin")):
            return  # how it is converted is said where its weights are looked at
        raise ConfigError(f"{named}: the folder has no *.safetensors")
    valid = "valid: a folder with config.json and safetensors, or a hub name like org/model"
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ConfigError(f"{named}: no such folder; {valid}")
    if missing := _missing_on_the_hub(name):
        raise ConfigError(f"{named}: {missing}; {valid}")


def _missing_on_the_hub(name: str) -> str:
    """Why there is no such model on the hub or in its cache; "" where there is one.

    A hub that does not answer is asked once: downloads would try for half a minute.
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
        return "gated on the hub, and HF_TOKEN is of no one who may read it"
    except (RepositoryNotFoundError, HFValidationError):
        return nowhere
    except Exception as error:  # of the hub's servers, of the network, of its library
        return f"not in the hub's cache, and the hub does not answer ({reason_of(error)})"
    return nowhere
