"""The one way from a checkpoint to a model: its weights are exactly those of the model's class.

transformers makes up weights that are missing, at random, and leaves out those that the config has
no room for, with a warning. Here both are errors, told from the headers of the weights' files:
transformers' own loader runs on the meta device, where tensors have shapes and no contents.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from logging import LogRecord
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import logging

from orchestrator.checkpoints.adapters import (
    PREFIX,
    Adapter,
    adapter_of,
    adapter_shapes,
    with_adapter,
)
from orchestrator.checkpoints.files import Header, naming
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.checkpoints.weights import Weights, read_config

# With the small models of a CPU run, plain attention is faster than SDPA, in training by 1.8 times.
CPU_ATTENTION = "eager"
NAMED = 5  # weights that an error names, at most
FLOATS = ("F64", "F32", "F16", "BF16")
# Heads that a class without them leaves out: a classifier has no use for a language model's. A
# language model takes no other head: a reward model is no policy.
_HEADS = re.compile(
    r"(lm_head|embed_out|score|classifier|regression_head|v_head|value_head|reward_head|cls"
    r"|lm_predictions|pooler)\."
)
# What old checkpoints hold and no model reads: causal masks of the GPT family, OPT's version.
_OLD_BUFFERS = re.compile(r"\.attn(\.attention)?\.(masked_)?bias$|(^|\.)decoder\.version$")


def load_whole(
    auto: Any,
    checkpoint: str,
    dtype: torch.dtype,
    may_lack: Collection[str] = (),
    **fields: Any,
) -> PreTrainedModel:
    """Loads a model of one of transformers' auto classes whose weights are all there and all used.

    An adapter is merged into its base. Of weights beside the model's only heads that its class does
    not have are left out, and what transformers itself says may be there.

    Args:
        auto: the auto class, such as AutoModelForCausalLM.
        checkpoint: folder or hub name.
        dtype: of the weights.
        may_lack: weights that the caller sets.
        fields: of the config, such as ``num_labels``.

    Raises:
        ValueError: weights are missing, of other shapes or types, or left over; or a file is
            damaged.
    """
    check_quantizer(checkpoint)
    check_whole(auto, checkpoint, may_lack, **fields)
    adapter = adapter_of(checkpoint)
    options = {**_loading(dtype), "config": model_config(checkpoint, **fields)}
    if adapter is not None and auto is AutoModel:
        # An adapter's names are those of a model with a head.
        model = _with_adapter(AutoModelForTokenClassification, adapter, options)
        return model.base_model
    if adapter is not None:
        return _with_adapter(auto, adapter, options)
    with _unreported():
        loaded, info = auto.from_pretrained(
            checkpoint, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    whole: PreTrainedModel = loaded
    _raise(checkpoint, whole, _faults(auto, info, may_lack))
    return whole


def check_whole(
    auto: Any, checkpoint: str, may_lack: Collection[str] = (), **fields: Any
) -> PreTrainedModel | None:
    """Checks that ``load_whole`` takes a checkpoint, from the headers of its files.

    Returns:
        The model without contents, on the meta device; None of quantized weights, of which only
        their own loader knows the shapes.

    Raises:
        ValueError: as ``load_whole``.
    """
    weights, config = Weights.of(checkpoint), model_config(checkpoint, **fields)
    headers = {name: weights.header(name) for name in sorted(weights.names)}
    if _quantization(checkpoint) is not None:
        return None
    adapter = adapter_of(checkpoint)
    if adapter is not None and auto is AutoModel:
        auto = AutoModelForTokenClassification
    with _quietly(), torch.device("meta"):
        model = _without_contents(auto, checkpoint, config)
        _check_dtypes(checkpoint, model, headers)
        kind = type(model)
        state = {name: torch.empty(header.shape) for name, header in headers.items()}
        try:
            model, info = kind.from_pretrained(
                None,
                config=model.config,
                state_dict=state,
                dtype=torch.float32,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except RuntimeError:  # several weights that become one, such as experts of a layer
            raise ValueError(
                f"{checkpoint}: its weights are not those of a {kind.__name__}: some that become"
                " one tensor are missing or of other shapes"
            ) from None
        faults = _faults(auto, info, may_lack)
        if adapter is not None:
            faults += _adapter_faults(auto, adapter, model)
    _raise(checkpoint, model, faults)
    whole: PreTrainedModel = model
    return whole


def _without_contents(auto: Any, checkpoint: str, config: PretrainedConfig) -> PreTrainedModel:
    """The model of a config; made on the meta device it takes no memory."""
    what = auto.__name__.removeprefix("Auto")  # ModelForCausalLM
    if type(config) not in auto._model_mapping:
        raise ValueError(
            f"{checkpoint}: transformers has no {what} of the model_type {config.model_type!r}"
        )
    with naming(f"{checkpoint}: config.json makes no {what}"):
        model: PreTrainedModel = auto.from_config(config)
    return model


def check_quantizer(checkpoint: str) -> None:
    """Checks that transformers can load a checkpoint's quantized weights, where they are.

    Raises:
        ValueError: transformers does not know their method, or lacks a package for it.
    """
    settings = _quantization(checkpoint)
    if settings is None:
        return
    with naming(f"{checkpoint}: config.json: quantization_config"):
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        try:
            quantizer.validate_environment(device_map=None, weights_only=True)
        except ImportError:
            raise
        except (RuntimeError, ValueError):
            return  # this machine has no card; the one that computes may


def _quantization(checkpoint: str) -> Any:
    return read_config(checkpoint).get("quantization_config")


def _with_adapter(auto: Any, adapter: Adapter, options: Mapping[str, Any]) -> PreTrainedModel:
    """The base with the adapter merged; both are known to be whole."""
    with _quietly():  # a head of the adapter's is no news
        model = auto.from_pretrained(adapter.base, ignore_mismatched_sizes=True, **options)
    return with_adapter(model, adapter)


def _faults(auto: Any, info: Mapping[str, Any], may_lack: Collection[str]) -> list[str]:
    """What is wrong by transformers' report of a load: missing, mismatched, unexpected weights."""
    faults = []
    if missing := sorted(set(info["missing_keys"]) - set(may_lack)):
        faults.append(f"missing: {_some(missing)}")
    if wrong := sorted(info["mismatched_keys"]):
        shown = [f"{name} {_shape(there)} instead of {_shape(ours)}" for name, there, ours in wrong]
        faults.append(f"of another shape: {_some(shown)}")
    dropped = partial(_is_dropped, auto)
    if unexpected := sorted(name for name in info["unexpected_keys"] if not dropped(name)):
        faults.append(f"without a place in the model of config.json: {_some(unexpected)}")
    return faults


def _adapter_faults(auto: Any, adapter: Adapter, model: PreTrainedModel) -> list[str]:
    """What is wrong between an adapter's file and what it adapts."""
    plain = {f"{PREFIX}{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    wanted = adapter_shapes(model, adapter)
    faults = []
    if missing := sorted(set(wanted) - set(adapter.headers)):
        faults.append(f"missing in the adapter: {_some(missing)}")
    shapes = {name: header.shape for name, header in adapter.headers.items()}
    known = {**plain, **wanted}  # embeddings are saved whole without being said
    if wrong := sorted(name for name in shapes if name in known and known[name] != shapes[name]):
        shown = [f"{n} {_shape(shapes[n])} instead of {_shape(known[n])}" for n in wrong]
        faults.append(f"of another shape in the adapter: {_some(shown)}")
    over = [name for name in shapes if name not in known]
    over = [name for name in over if not _is_dropped(auto, name.removeprefix(PREFIX))]
    if over:
        faults.append(f"in the adapter, without a place in the base: {_some(over)}")
    return faults


def _is_dropped(auto: Any, name: str) -> bool:
    """Whether a weight that a class does not have is left out."""
    return bool(_OLD_BUFFERS.search(name)) or (
        auto is not AutoModelForCausalLM and bool(_HEADS.match(name))
    )


def _raise(checkpoint: str, model: PreTrainedModel, faults: Sequence[str]) -> None:
    if faults:
        kind = type(model).__name__
        raise ValueError(
            f"{checkpoint}: its weights are not those of a {kind}: {'; '.join(faults)}"
        )


def _check_dtypes(checkpoint: str, model: PreTrainedModel, headers: Mapping[str, Header]) -> None:
    """Refuses quantized weights of which nothing says how they were quantized."""
    parameters = {name for name, _ in model.named_parameters()}
    for name, header in headers.items():
        if header.dtype not in FLOATS and (name in parameters or name.endswith("weight")):
            raise ValueError(
                f"{checkpoint}: {name} is stored as {header.dtype}, and config.json has no"
                " quantization_config: read as plain numbers such weights would score 0.0; valid:"
                f" weights in {', '.join(FLOATS)}"
            )


def _loading(dtype: torch.dtype) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    # Plain attention takes its softmax in float32, whatever the weights are in.
    if not torch.cuda.is_available() and dtype != torch.float64:
        options["attn_implementation"] = CPU_ATTENTION
    return options


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' bars and reports of a load: what is wrong becomes an error here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _unreported() -> Iterator[None]:
    """Without transformers' report of weights that have no place: it is an error, or expected.

    All else that it has to say is said.
    """
    logger = logging.get_logger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: LogRecord) -> bool:
    text = record.getMessage()
    return "LOAD REPORT" not in text or "CONVERSION" in text  # of which an error speaks


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
