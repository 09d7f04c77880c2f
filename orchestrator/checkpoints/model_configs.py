"""A checkpoint's transformers config; errors are one sentence that names the file."""

from collections.abc import Mapping

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from orchestrator.checkpoints.adapters import base_of
from orchestrator.checkpoints.files import as_value_error, file_of
from orchestrator.checkpoints.weights import read_config


def model_config(checkpoint: str, **fields: object) -> PretrainedConfig:
    """Load the config of a checkpoint folder or hub name; that of its base for an adapter.

    Args:
        checkpoint: folder or hub name.
        fields: values to set, such as ``num_labels``.

    Raises:
        ValueError: there is no config.json, it is not a JSON object, its model_type is unknown,
            or a value is invalid.
    """
    content = read_config(checkpoint)
    if not content and file_of(base_of(checkpoint), "config.json") is None:
        raise ValueError(f"{checkpoint}: it has no config.json")
    kind = content.get("model_type")
    if kind not in CONFIG_MAPPING_NAMES:
        remote_code = "; its own code (auto_map) is not run" * ("auto_map" in content)
        raise ValueError(
            f"{checkpoint}: config.json: model_type = {kind!r} is not one that transformers knows"
            f"{remote_code}"
        )
    with as_value_error(f"{checkpoint}: config.json"):
        return AutoConfig.from_pretrained(base_of(checkpoint), trust_remote_code=False, **fields)


def is_encoder(config: Mapping[str, object]) -> bool:
    """Return whether a config.json is of an encoder such as BERT, with bidirectional attention."""
    kind = config.get("model_type")
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
