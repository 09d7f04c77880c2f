"""Loading models whose weights are exactly those of the model class.

transformers initializes missing weights at random and drops unexpected ones, with a warning. Here
both are errors, detected from the headers of the weights' files: transformers' loader runs on the
meta device, where tensors have shapes but no contents.
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
from transformers.models.auto.auto_factory import _BaseAutoModelClass
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import logging

from orchestrator.checkpoints.adapters import (
    PREFIX,
    Adapter,
    adapter_of,
    adapter_shapes,
    with_adapter,
)
from orchestrator.checkpoints.files import Header, as_value_error
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.checkpoints.weights import Weights, read_config

AutoClass = type[_BaseAutoModelClass]  # such as AutoModelForCausalLM
# For small models on a CPU, eager attention is faster than SDPA, in training by a factor of 1.8.
CPU_ATTENTION = "eager"
MAX_NAMED = 5  # weights in an error message
FLOATS = ("F64", "F32", "F16", "BF16")
# Heads that a class without them ignores: a classifier does not use a language model's head. For a
# language model another head is an error: a reward model is not a policy.
_HEADS = re.compile(
    r"(lm_head|embed_out|score|classifier|regression_head|v_head|value_head|reward_head|cls"
    r"|lm_predictions|pooler)\."
)
# Unused buffers of old checkpoints: causal masks of the GPT family, OPT's version.
_OLD_BUFFERS = re.compile(r"\.attn(\.attention)?\.(masked_)?bias$|(^|\.)decoder\.version$")


def load_model(
    auto: AutoClass,
    checkpoint: str,
    dtype: torch.dtype,
    may_lack: Collection[str] = (),
    **fields: object,
) -> PreTrainedModel:
    """Load a model of a transformers auto class; all its weights must exist and be used.

    An adapter is merged into its base. Ignored are only heads that the class lacks, unused buffers
    of old checkpoints, and weights that transformers lists as ignorable.

    Args:
        auto: the auto class, such as AutoModelForCausalLM.
        checkpoint: folder or hub name.
        dtype: dtype of the weights.
        may_lack: weights that the caller sets.
        fields: fields of the config, such as ``num_labels``.

    Raises:
        ValueError: weights are missing, unexpected or of other shapes or types, or a file is
            damaged.
    """
    check_quantizer(checkpoint)
    check_weights(auto, checkpoint, may_lack, **fields)
    adapter = adapter_of(checkpoint)
    options = {**_load_options(dtype), "config": model_config(checkpoint, **fields)}
    if adapter is not None and auto is AutoModel:
        # An adapter's names are those of a model with a head.
        return _load_base_and_adapter(AutoModelForTokenClassification, adapter, options).base_model
    if adapter is not None:
        return _load_base_and_adapter(auto, adapter, options)
    with _unreported():
        model, info = auto.from_pretrained(
            checkpoint, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    _raise_if(checkpoint, model, _errors(auto, info, may_lack))
    return model


def check_weights(
    auto: AutoClass, checkpoint: str, may_lack: Collection[str] = (), **fields: object
) -> PreTrainedModel | None:
    """Check from the headers of its files that ``load_model`` accepts a checkpoint.

    Returns:
        The model on the meta device; None for quantized weights, since only their loader determines
            the shapes; of such a checkpoint only an adapter is checked.

    Raises:
        ValueError: as ``load_model``.
    """
    weights, config = Weights.of(checkpoint), model_config(checkpoint, **fields)
    headers = {name: weights.header(name) for name in sorted(weights.names)}
    adapter = adapter_of(checkpoint)
    if adapter is not None and auto is AutoModel:
        auto = AutoModelForTokenClassification
    if _quantization(checkpoint) is not None:
        if adapter is not None:
            with _quietly(), torch.device("meta"):
                model = _without_contents(auto, checkpoint, config)
                errors = _adapter_errors(auto, adapter, model)
            _raise_if(checkpoint, model, errors)
        return None
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
        except RuntimeError:  # weights that are merged into one, such as experts of a layer
            raise ValueError(
                f"{checkpoint}: its weights are not those of a {kind.__name__}: some weights that"
                " are merged into one tensor are missing or have other shapes"
            ) from None
        errors = _errors(auto, info, may_lack)
        if adapter is not None:
            errors += _adapter_errors(auto, adapter, model)
    _raise_if(checkpoint, model, errors)
    checked: PreTrainedModel = model
    return checked


def _without_contents(
    auto: AutoClass, checkpoint: str, config: PretrainedConfig
) -> PreTrainedModel:
    """Return the model of a config; on the meta device it takes no memory."""
    what = auto.__name__.removeprefix("Auto")  # ModelForCausalLM
    if type(config) not in auto._model_mapping:
        raise ValueError(
            f"{checkpoint}: transformers has no {what} of the model_type {config.model_type!r}"
        )
    with as_value_error(f"{checkpoint}: cannot build a {what} from config.json"):
        model: PreTrainedModel = auto.from_config(config)
    return model


def check_quantizer(checkpoint: str) -> None:
    """Check that transformers can load a checkpoint's quantized weights, if it has any.

    Other failures of the environment check, such as a missing GPU, are ignored: the worker may
    have one.

    Raises:
        ValueError: transformers does not know their method, or lacks a package for it.
    """
    settings = _quantization(checkpoint)
    if settings is None:
        return
    with as_value_error(f"{checkpoint}: config.json: quantization_config"):
        quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
        try:
            quantizer.validate_environment(device_map=None, weights_only=True)
        except (RuntimeError, ValueError):
            return


def _quantization(checkpoint: str) -> object:
    return read_config(checkpoint).get("quantization_config")


def _load_base_and_adapter(
    auto: AutoClass, adapter: Adapter, options: Mapping[str, object]
) -> PreTrainedModel:
    """Load the base and merge the adapter; the weights of both are checked before."""
    with _quietly():  # hides the warning of a head that only the adapter has
        model = auto.from_pretrained(adapter.base, ignore_mismatched_sizes=True, **options)
    return with_adapter(model, adapter)


def _errors(auto: AutoClass, info: Mapping[str, Any], may_lack: Collection[str]) -> list[str]:
    """Return the errors in transformers' loading info: missing, mismatched, unexpected weights."""
    errors = []
    if missing := sorted(set(info["missing_keys"]) - set(may_lack)):
        errors.append(f"missing: {_some(missing)}")
    if wrong := sorted(info["mismatched_keys"]):
        shown = [f"{n} {_shape(stored)} instead of {_shape(ours)}" for n, stored, ours in wrong]
        errors.append(f"of another shape: {_some(shown)}")
    dropped = partial(_is_dropped, auto)
    if unexpected := sorted(name for name in info["unexpected_keys"] if not dropped(name)):
        errors.append(f"not in the model of config.json: {_some(unexpected)}")
    return errors


def _adapter_errors(auto: AutoClass, adapter: Adapter, model: PreTrainedModel) -> list[str]:
    """Return the errors of an adapter's file for the model that it adapts."""
    plain = {f"{PREFIX}{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    required = adapter_shapes(model, adapter)
    errors = []
    if missing := sorted(set(required) - set(adapter.headers)):
        errors.append(f"missing in the adapter: {_some(missing)}")
    shapes = {name: header.shape for name, header in adapter.headers.items()}
    expected = {**plain, **required}  # embeddings may be saved in full without being listed
    if wrong := sorted(
        name for name in shapes if name in expected and expected[name] != shapes[name]
    ):
        shown = [f"{n} {_shape(shapes[n])} instead of {_shape(expected[n])}" for n in wrong]
        errors.append(f"of another shape in the adapter: {_some(shown)}")
    unexpected = [name for name in shapes if name not in expected]
    unexpected = [name for name in unexpected if not _is_dropped(auto, name.removeprefix(PREFIX))]
    if unexpected:
        errors.append(f"in the adapter, but not in the base: {_some(unexpected)}")
    return errors


def _is_dropped(auto: AutoClass, name: str) -> bool:
    """Return whether a weight that a class does not have may be ignored."""
    return bool(_OLD_BUFFERS.search(name)) or (
        auto is not AutoModelForCausalLM and bool(_HEADS.match(name))
    )


def _raise_if(checkpoint: str, model: PreTrainedModel, errors: Sequence[str]) -> None:
    if errors:
        kind = type(model).__name__
        raise ValueError(
            f"{checkpoint}: its weights are not those of a {kind}: {'; '.join(errors)}"
        )


def _check_dtypes(checkpoint: str, model: PreTrainedModel, headers: Mapping[str, Header]) -> None:
    """Reject quantized weights without a quantization config."""
    parameters = {name for name, _ in model.named_parameters()}
    for name, header in headers.items():
        if header.dtype not in FLOATS and (name in parameters or name.endswith("weight")):
            raise ValueError(
                f"{checkpoint}: {name} is stored as {header.dtype}, and config.json has no"
                " quantization_config: without it the weights cannot be dequantized; valid: weights"
                f" in {', '.join(FLOATS)}"
            )


def _load_options(dtype: torch.dtype) -> dict[str, object]:
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True}
    # Eager on a CPU, except for float64: eager attention computes its softmax in float32.
    if not torch.cuda.is_available() and dtype != torch.float64:
        options["attn_implementation"] = CPU_ATTENTION
    return options


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide transformers' progress bars and loading reports; errors are raised here instead."""
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
    """Hide load reports, whose entries `_errors` raises, except reports of failed conversions."""
    logger = logging.get_logger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: LogRecord) -> bool:
    text = record.getMessage()
    return "LOAD REPORT" not in text or "CONVERSION" in text


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
