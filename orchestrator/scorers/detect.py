"""What kind of reward model a checkpoint is, by its config and the names of its weights alone."""

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.model_configs import is_encoder
from orchestrator.checkpoints.reward_heads import TWO_LAYERS, check_label, find_head, no_head
from orchestrator.checkpoints.weights import Weights, read_config
from orchestrator.choices import ScorerKind
from orchestrator.scorers.formats import PRESETS
from orchestrator.scorers.scorer import ScorerSpec

Form = Literal[
    "classifier", "value head", "step values", "encoder", "process head", "token classes",
    "language model", "something else",
]  # fmt: skip
# Which kinds of scorer a form can be asked as.
FITS: dict[Form, tuple[ScorerKind, ...]] = {
    "classifier": ("sequence",),
    "value head": ("sequence", "step_tag"),
    "step values": ("step_tag",),
    "encoder": ("encoder",),
    "process head": ("step_tag",),
    "token classes": ("step_tag",),
    "language model": ("step_tag", "log_ratio"),
    "something else": (),
}
_ENCODER_HEADS = frozenset(
    ("classifier.weight", "classifier.out_proj.weight", "score.weight")
)  # their last layers
# Nothing tells a language model that judges steps from one that writes them, nor a value head that
# scores whole answers under a chat template from one that scores steps of raw text.
MUST_BE_SAID: tuple[Form, ...] = ("language model", "value head")
_STEP_VALUES = "ForPrmModel"  # as Skywork-o1-Open-PRM's architecture ends


@dataclass(frozen=True)
class Nature:
    """What a checkpoint is: its form, a sentence's part that says so, and its head's labels."""

    form: Form
    what: str
    labels: int = 1


def nature_of(checkpoint: str) -> Nature:
    """Looks at a checkpoint folder or hub name; no weight is read.

    Raises:
        ValueError: it has no safetensors weights, or several reward heads.
    """
    config, weights = read_config(checkpoint), Weights.of(checkpoint)
    name = " ".join(config.get("architectures") or ()) or str(config.get("model_type"))
    if config.get("is_encoder_decoder"):
        return Nature("something else", f"a {name}, an encoder with a decoder")
    if is_encoder(config):
        return _encoder(config, weights, name)
    if name.endswith("ForTokenClassification"):
        return Nature("token classes", f"a {name}, read at step tags")
    if head := find_head(weights):
        if head.layers == TWO_LAYERS and head.labels == 2:
            return Nature("process head", f"a {name} with a head of two layers, read at step tags")
        if head.is_value_head and head.labels == 1:
            if name.endswith(_STEP_VALUES):
                return Nature("step values", f"a {name} with a value head, read behind each step")
            return Nature("value head", f"a {name} with a value head ({head.layers[0]})")
        labels = f" of {head.labels} labels" if head.labels > 1 else ""
        what = f"a {name} with the reward head {head.layers[-1]}{labels}"
        return Nature("classifier", what, head.labels)
    if name.endswith("ForSequenceClassification") and adapter_of(checkpoint):
        return Nature("something else", f"an adapter for a {name}: {_headless(checkpoint)}")
    if "lm_head.weight" in weights.names or name.endswith(("ForCausalLM", "LMHeadModel")):
        return Nature("language model", f"a {name}, a language model: {_headless(checkpoint)}")
    return Nature("something else", f"a {name}: {_headless(checkpoint)}")


def kind_of(spec: ScorerSpec) -> ScorerKind:
    """The kind of a scorer: the one given, where it fits, else the one detected.

    A spec with a base says that it is a log ratio.

    Raises:
        ValueError: the given kind does not fit, or none is given and none is told by the
            checkpoint; or a log ratio has no base, or another kind has one; or the label that is
            the score is not given, or there is none.
    """
    nature = nature_of(spec.checkpoint)
    kind = _kind_of(spec, nature)
    if kind in ("sequence", "encoder"):
        check_label(spec.checkpoint, nature.labels, spec.score_label)
    elif spec.score_label is not None:
        raise ValueError(
            f"{spec.checkpoint}: score_label = {spec.score_label}: a scorer of kind {kind!r} has no"
            " head of labels; valid: none"
        )
    return kind


def _kind_of(spec: ScorerSpec, nature: Nature) -> ScorerKind:
    fitting = FITS[nature.form]
    if spec.score_token is not None:
        if nature.form != "language model":
            raise ValueError(
                f"{spec.checkpoint}: score_token = {spec.score_token}: a logit of a language model,"
                f" and it is {nature.what}; valid: none"
            )
        size = read_config(spec.checkpoint).get("vocab_size")
        if isinstance(size, int) and not 0 <= spec.score_token < size:
            raise ValueError(
                f"{spec.checkpoint}: score_token = {spec.score_token}: no such token; valid: 0 to"
                f" {size - 1}"
            )
        return "sequence"
    if spec.step_format is not None and nature.form == "classifier":
        fitting = ("step_tag",)  # one label behind each step
    kind = spec.kind or ("log_ratio" if spec.base else None)
    if (kind == "log_ratio") != bool(spec.base):
        if not spec.base:
            raise ValueError(
                f"{spec.checkpoint}: kind 'log_ratio' needs a base; valid: base: the folder or hub"
                " name of the denominator"
            )
        raise ValueError(
            f"{spec.checkpoint}: base = {spec.base!r}: only the kind log_ratio has a base, and kind"
            f" is {kind!r}; valid: remove base, or set kind: log_ratio"
        )
    if spec.base and (other := nature_of(spec.base)).form != "language model":
        raise ValueError(f"{spec.base}: no base of a log ratio: it is {other.what}")
    if kind is not None:
        if kind in fitting:
            return kind
        valid = ", ".join(fitting) or "a checkpoint of a kind in docs/scorers.md"
        raise ValueError(
            f"{spec.checkpoint}: no scorer of kind {kind!r}: it is {nature.what}; valid: {valid}"
        )
    if not fitting:
        raise ValueError(
            f"{spec.checkpoint}: not a reward model that can be scored with: it is {nature.what}"
        )
    if nature.form in MUST_BE_SAID:
        raise ValueError(
            f"{spec.checkpoint}: it is {nature.what}; how it scores cannot be told from its files;"
            f" valid: a preset ({', '.join(_presets_of(nature.form))}), or a kind"
            f" ({', '.join(fitting)})"
        )
    return fitting[0]


def _presets_of(form: Form) -> list[str]:
    """The presets that a checkpoint of a form can have."""
    if form == "value head":
        return ["skywork-o1-prm"]
    return [
        name
        for name, preset in PRESETS.items()
        if preset.score_token is not None or (preset.step_format and preset.step_format.right)
    ]


def _encoder(config: dict[str, Any], weights: Weights, name: str) -> Nature:
    if name.endswith("ForTokenClassification"):
        return Nature("something else", f"a {name}, which classifies tokens and sees both ways")
    if not any(key.split(".")[0] in ("classifier", "score") for key in weights.names):
        return Nature("something else", f"a {name}, an encoder without a classifier")
    # transformers' defaults where the config is silent: two labels.
    labels = len(config["id2label"]) if "id2label" in config else config.get("num_labels", 2)
    if adapter_of(weights.checkpoint) and (head := weights.names & _ENCODER_HEADS):
        labels = weights.shape(min(head))[0]  # the config is that of the base
    many = "one label" if labels == 1 else f"{labels} labels"
    return Nature("encoder", f"a {name}, an encoder with {many}", labels)


def _headless(checkpoint: str) -> str:
    return no_head(checkpoint).removeprefix(f"{checkpoint}: ")
