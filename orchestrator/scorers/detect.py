"""Detects the form of a checkpoint, and with it the scorer kind, from config and weight names."""

from dataclasses import dataclass, replace
from typing import Literal

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.files import JsonFile
from orchestrator.checkpoints.model_configs import is_encoder
from orchestrator.checkpoints.reward_heads import TWO_LAYERS, check_label, find_head, no_head
from orchestrator.checkpoints.weights import Weights, read_config
from orchestrator.scorers.formats import PRESETS
from orchestrator.scorers.kind import (
    SCORER_KINDS,
    ScorerKind,
    kinds_in_order,
    kinds_that_use,
    make_kind,
)
from orchestrator.scorers.spec import ScorerSpec

HeadType = Literal[
    "classifier", "value head", "step values", "encoder", "process head", "token classes",
    "language model", "something else",
]  # fmt: skip
_ENCODER_HEADS = frozenset(
    ("classifier.weight", "classifier.out_proj.weight", "score.weight")
)  # their last layers
_STEP_VALUES = "ForPrmModel"  # end of the architecture's name of Skywork-o1-Open-PRM


@dataclass(frozen=True)
class CheckpointInfo:
    """What the files of a checkpoint show.

    Attributes:
        head_type: what can be read from the model.
        description: a noun phrase for messages.
        labels: number of labels of its head.
        architecture: name of its class in config.json, else its model type.
    """

    head_type: HeadType
    description: str
    labels: int = 1
    architecture: str = ""


def inspect_checkpoint(checkpoint: str) -> CheckpointInfo:
    """Describe a checkpoint folder or hub name by its config and weight names; reads no weights.

    Raises:
        ValueError: it has no safetensors weights, or several reward heads.
    """
    config, weights = read_config(checkpoint), Weights.of(checkpoint)
    name = " ".join(config.get("architectures") or ()) or str(config.get("model_type"))
    return replace(_inspected(checkpoint, config, weights, name), architecture=name)


def _inspected(checkpoint: str, config: JsonFile, weights: Weights, name: str) -> CheckpointInfo:
    if config.get("is_encoder_decoder"):
        return CheckpointInfo("something else", f"a {name}, an encoder with a decoder")
    if is_encoder(config):
        return _encoder(config, weights, name)
    if name.endswith("ForTokenClassification"):
        return CheckpointInfo("token classes", f"a {name}, read at step tags")
    if head := find_head(weights):
        if head.layers == TWO_LAYERS and head.labels == 2:
            return CheckpointInfo(
                "process head", f"a {name} with a head of two layers, read at step tags"
            )
        if head.is_trl_value_head and head.labels == 1:
            if name.endswith(_STEP_VALUES):
                return CheckpointInfo(
                    "step values", f"a {name} with a value head, read after each step"
                )
            return CheckpointInfo("value head", f"a {name} with a value head ({head.layers[0]})")
        labels = f" of {head.labels} labels" if head.labels > 1 else ""
        description = f"a {name} with the reward head {head.layers[-1]}{labels}"
        return CheckpointInfo("classifier", description, head.labels)
    if name.endswith("ForSequenceClassification") and adapter_of(checkpoint):
        return CheckpointInfo(
            "something else", f"an adapter for a {name}: {_without_head(checkpoint)}"
        )
    if "lm_head.weight" in weights.names or name.endswith(("ForCausalLM", "LMHeadModel")):
        return CheckpointInfo(
            "language model", f"a {name}, a language model: {_without_head(checkpoint)}"
        )
    return CheckpointInfo("something else", f"a {name}: {_without_head(checkpoint)}")


def scorer_kind(spec: ScorerSpec) -> ScorerKind:
    """Return the kind of a scorer with its options set: the spec's, else the detected one.

    Raises:
        ValueError: as of ``kind_of``, or an option is not valid.
    """
    return make_kind(kind_of(spec), spec.options)


def kind_of(spec: ScorerSpec) -> str:
    """Return the name of a scorer's kind: the spec's, else the one that its fields or files show.

    Raises:
        ValueError: the checkpoint is not of the spec's kind, or its kind cannot be detected; or a
            field of the spec is set that the kind does not read; or base model, label or token are
            missing or do not exist.
    """
    info = inspect_checkpoint(spec.checkpoint)
    kinds = kinds_in_order()
    fitting = [name for name, kind in kinds.items() if kind.fits(spec, info)]
    name = spec.kind or next((n for n, kind in kinds.items() if kind.is_implied(spec)), None)
    if name is None:
        name = _detected(spec, info, fitting)
    kind = SCORER_KINDS[name]
    _check_base(spec, kind)
    kind.check_spec(spec, info)
    if name not in fitting:
        valid = ", ".join(fitting) or "a checkpoint of a kind in docs/scorers.md"
        raise ValueError(
            f"{spec.checkpoint}: cannot be a scorer of kind {name!r}: it is {info.description};"
            f" valid: {valid}"
        )
    if "score_label" in kind.uses:
        check_label(spec.checkpoint, info.labels, spec.score_label)
    for field in ("score_label", "score_token", "score_at"):
        value = getattr(spec, field)
        if value is not None and field not in kind.uses:
            raise ValueError(
                f"{spec.checkpoint}: {field} = {value!r}: a scorer of kind {name!r} does not use"
                f" it; valid: remove it, or a model of kind {kinds_that_use(field)}"
            )
    return name


def _check_base(spec: ScorerSpec, kind: type[ScorerKind]) -> None:
    """Raise ValueError if a base is set without effect, or if a required base is missing."""
    if kind.needs_base and not spec.base:
        raise ValueError(
            f"{spec.checkpoint}: kind {kind.name!r} needs a base; valid: base: the folder or hub"
            " name of the base model"
        )
    if spec.base and "base" not in kind.uses:
        raise ValueError(
            f"{spec.checkpoint}: base = {spec.base!r}: kind {kind.name!r} has no base model; valid:"
            f" remove base, or set kind: {kinds_that_use('base')}"
        )


def _detected(spec: ScorerSpec, info: CheckpointInfo, fitting: list[str]) -> str:
    """Return the first of the fitting kinds that recognizes a checkpoint."""
    if not fitting:
        raise ValueError(
            f"{spec.checkpoint}: not a supported reward model: it is {info.description}"
        )
    for name in fitting:
        if SCORER_KINDS[name].recognizes(spec, info):
            return name
    presets = _presets_of(info.head_type)
    valid = f"a preset ({', '.join(presets)}), or a kind" if presets else "a kind"
    raise ValueError(
        f"{spec.checkpoint}: it is {info.description}; its files do not show how it scores;"
        f" valid: {valid} ({', '.join(fitting)})"
    )


def _presets_of(head_type: HeadType) -> list[str]:
    """Return the presets that a checkpoint of a form can have."""
    if head_type == "value head":
        return ["skywork-o1-prm"]
    if head_type != "language model":
        return []
    return [
        name
        for name, preset in PRESETS.items()
        if preset.score_token is not None or (preset.step_format and preset.step_format.right)
    ]


def _encoder(config: JsonFile, weights: Weights, name: str) -> CheckpointInfo:
    if name.endswith("ForTokenClassification"):
        return CheckpointInfo("something else", f"a {name}, a bidirectional token classifier")
    if not any(key.split(".")[0] in ("classifier", "score") for key in weights.names):
        return CheckpointInfo("something else", f"a {name}, an encoder without a classifier")
    # transformers' default without an entry is two labels
    labels = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    if adapter_of(weights.checkpoint) and (head := weights.names & _ENCODER_HEADS):
        labels = weights.shape(min(head))[0]  # the config is the base's
    many = "one label" if labels == 1 else f"{labels} labels"
    return CheckpointInfo("encoder", f"a {name}, an encoder with {many}", labels)


def _without_head(checkpoint: str) -> str:
    return no_head(checkpoint).removeprefix(f"{checkpoint}: ")
