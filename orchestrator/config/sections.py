"""Config sections of data, models and variants. Defaults are those of the embedded world."""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.choices import Aggregation
from orchestrator.config.objectives import ObjectiveName
from orchestrator.config.scorer_kinds import KindName
from orchestrator.fields.section import Section
from orchestrator.fields.types import Count, Index, Positive, Text, Token
from orchestrator.objectives.objective import OBJECTIVES, AnyObjective
from orchestrator.scorers.formats import StepFormat
from orchestrator.scorers.kind import SCORER_KINDS, check_option_names
from orchestrator.tasks.task import TASKS, Task

if TYPE_CHECKING:
    Data = Task
else:  # the section of a task is its class; ``task`` names it
    Data = Annotated[Union[tuple(TASKS.values())], Field(discriminator="task")]  # noqa: UP007


TRAINED_KIND = "sequence"  # kind of scorer of a model that Bradley-Terry training makes
IMPLICIT_KIND = "log_ratio"  # kind of scorer of a model that the other objectives train


class Architecture(Section):
    """Size of a Llama model that is trained from scratch; field names are those of LlamaConfig.

    The defaults give 0.9 million parameters, which two CPU cores train in minutes.
    """

    hidden_size: Count = 128
    """Width of the hidden states; a multiple of `num_attention_heads`, with heads of even size."""
    intermediate_size: Count = 384
    """Width of the feed-forward layers."""
    num_hidden_layers: Count = 4
    """Number of decoder layers."""
    num_attention_heads: Count = 4
    """Number of attention heads."""
    num_key_value_heads: Count = 4
    """Number of key-value heads; it divides `num_attention_heads`."""
    max_position_embeddings: Count = 256
    """Context length: tokens of prompt and response together. It must hold a prompt (up to 24
    tokens in the help desk) and `decoding.max_new_tokens`; longer training rows are rejects."""
    initializer_range: Annotated[Positive, Field(le=10)] = 0.06
    """Standard deviation of the initial weights, larger than that of Llama (0.02) because the
    layers are narrow."""


PresetName = Literal[
    "math-shepherd", "qwen2.5-math-prm", "trl-prm", "skywork-o1-prm", "rlhflow-prm", "rlhflow-orm",
    "granite-math-prm", "qwen2.5-math-rm", "inf-orm", "nemotron-reward",
]  # fmt: skip


class Reading(Section):
    """How the score of a reward model is read, if its files do not show it.

    Families and tokens: [public_models.md](public_models.md).
    """

    preset: PresetName | None = None
    """Family of public models that the checkpoint belongs to; null: detected from its files."""
    score_at: Token | None = None
    """Token of the template's closing at which the score is read: its text, or its index from the
    end, such as -2. null: the last token."""
    score_label: Index | None = None
    """Index of the label that is the score; only for a head of several labels, which needs it."""


class ModelsConfig(Section):
    """Checkpoints to use instead of training, and the size of models trained from scratch.

    A checkpoint is a folder (safetensors) or a hub name. What is checked before the run starts:
    [checkpoints.md](checkpoints.md).
    """

    policy: Text | None = None
    """Checkpoint of the policy; null: the run trains one from scratch."""
    orm: Text | None = None
    """Checkpoint of the ORM; null: the run trains one from the policy. It needs a causal backbone
    if variants are trained from it."""
    reference: Text | None = None
    """Checkpoint of the reference reward model, of any kind in [scorers.md](scorers.md); null: the
    run trains one from the policy."""
    orm_reading: Reading = Reading()
    """How the score of the checkpoint `orm` is read."""
    reference_reading: Reading = Reading()
    """How the score of the checkpoint `reference` is read."""
    architecture: Architecture = Architecture()
    """Size of the Llama model that is trained from scratch."""
    vocabulary: Count = 2_048
    """Entries of the byte-pair tokenizer that is trained on the data. The help desk does not use
    it: its tokens are whole words."""

    @model_validator(mode="after")
    def _readings_are_of_checkpoints(self) -> Self:
        for name in ("orm", "reference"):
            reading = getattr(self, f"{name}_reading")
            if reading != Reading() and getattr(self, name) is None:
                raise ValueError(
                    f"{name}_reading: applies only to a checkpoint, since a model that the run"
                    " trains is"
                    f" read as it was trained; valid: remove it, or set models.{name}"
                )
        return self

    def reading(self, model: str) -> Reading:
        """Return how the score of a model is read; the default unless ORM or reference."""
        readings = {"orm": self.orm_reading, "reference": self.reference_reading}
        return readings.get(model, Reading())


class Variant(Section):
    """A scorer in addition to the ORM: a PRM that the run trains, or a checkpoint of the user.

    By Bradley-Terry it is trained from the ORM; ``truncation`` whole is the control, the ORM
    trained on for as many steps. By the other objectives it is an implicit PRM, trained from the
    policy. A density ratio is not trained at all.
    """

    checkpoint: Text | None = None
    """Checkpoint to use as the scorer; null: the run trains the variant."""
    objective: ObjectiveName = "bradley_terry"
    """Training objective. `bradley_terry` continues the ORM on partial pairs. `dpo`, `nca`, `kto`
    and `ce` train an implicit PRM from the policy, on the whole pairs of the ORM and the PRM.
    `density_ratio` is not trained."""
    truncation: Literal["sst", "tlt", "whole"] = "sst"
    """How partial pairs are made: `sst` at a few random lengths, `tlt` at every token. `whole`
    continues the ORM on its whole pairs, as a control. Only for `bradley_terry`."""
    weight: Literal["reference", "none", "mask", "entropy", "shuffled"] = "reference"
    """Weight of a partial pair. `reference`: 1/H where the reference agrees with the preference,
    else 0 (Eq. 3). `none`: 1 (Eq. 2). Controls: `mask`: 1 where it agrees, else 0; `entropy`: 1/H
    everywhere; `shuffled`: the weights of the kept pairs in random order."""
    match: Text | None = None
    """Variant whose amount of training is matched: the number of steps (truncation `whole`), or the
    number of partial pairs as a limit. null: no limit; `tlt` then takes every length of all
    pairs. Truncation `whole` needs it."""
    base: Text | None = None
    """Checkpoint in the denominator of a log ratio; null: the policy of the run."""
    beta: Positive = 0.05
    """Factor of a log ratio; 0.05 as in the paper of the implicit PRM."""
    kind: KindName | None = None
    """Kind of scorer ([scorers.md](scorers.md)), for a `checkpoint` with objective `bradley_terry`;
    null: detected from its files."""
    aggregation: Aggregation | None = None
    """How step rewards become the score of a prefix; null: `last` for kind `step_tag`, else the
    prefix is scored directly."""
    step_delimiter: Text | None = None
    """Text that ends a step, for kind `step_tag` and for an aggregation; null: the default of the
    kind ([scorers.md](scorers.md))."""
    step_tag: Text | None = None
    """Text after a step, at which the reward of the step is read, for kind `step_tag`; null: the
    default of the model's family."""
    score_label: Index | None = None
    """Index of the label that is the score; only for a checkpoint with a head of several labels,
    which needs it."""
    preset: PresetName | None = None
    """Family that the checkpoint belongs to ([public_models.md](public_models.md)); null: detected
    from its files."""
    format: StepFormat | None = None
    """How a process reward model reads steps, for a checkpoint of no known family
    ([public_models.md](public_models.md)); null: taken from `preset` or detected from its files."""
    score_token: Index | None = None
    """Token id of a language model whose logit after the conversation is the score; null: the score
    is read from the head."""
    score_at: Token | None = None
    """Token of the template's closing at which the score is read: its text, or its index from the
    end, such as -2. null: the last token."""
    options: dict[str, object] = Field(default={})
    """Options of the scorer `kind`, by name; the built-in kinds have none."""

    @field_validator("format", mode="before")
    @classmethod
    def _known_fields(cls, config_value: object) -> object:
        if not isinstance(config_value, dict):
            return config_value
        valid = [field.name for field in fields(StepFormat)]
        unknown = [name for name in config_value if name not in valid]
        if unknown:
            raise ValueError(f"{unknown[0]}: no such field; valid: {', '.join(valid)}")
        try:
            return StepFormat(**config_value)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def trained_by(self) -> type[AnyObjective]:
        """The objective, whose traits decide what the training needs."""
        return OBJECTIVES[self.objective]

    @field_validator("options")
    @classmethod
    def _options_of_the_kind(
        cls, options: dict[str, object], info: ValidationInfo
    ) -> dict[str, object]:
        if not options:
            return options
        kind = info.data.get("kind")
        if kind is None:
            raise PydanticCustomError("no_kind", "options need a kind; valid: set `kind` too")
        try:
            check_option_names(kind, options)
        except ValueError as error:
            raise PydanticCustomError("no_option", "{why}", {"why": str(error)}) from None
        SCORER_KINDS[kind].model_validate(options)  # pydantic adds its path to this one
        return options

    @property
    def objective_kind(self) -> str | None:
        """The kind of scorer that its objective determines; None: its checkpoint does.

        A checkpoint with an objective of log ratios is scored by the log ratio.
        """
        if self.trained_by.is_log_ratio:
            return IMPLICIT_KIND
        return TRAINED_KIND if self.checkpoint is None else None

    @property
    def scorer_kind(self) -> str | None:
        """The kind of scorer that it is; None: the files of its checkpoint show it."""
        return self.objective_kind or self.kind

    @property
    def has_base(self) -> bool:
        """Whether its scores compare its model with a base model."""
        return self.scorer_kind is not None and SCORER_KINDS[self.scorer_kind].needs_base

    @property
    def is_trained(self) -> bool:
        """Whether the run trains it."""
        return self.checkpoint is None and self.trained_by.is_trained()

    @property
    def is_trained_from_orm(self) -> bool:
        """Whether the run trains it, from the weights of the ORM."""
        return self.is_trained and self.trained_by.starts_from == "orm"

    @property
    def is_trained_from_policy(self) -> bool:
        """Whether the run trains it, from the weights of the policy."""
        return self.is_trained and self.trained_by.starts_from == "policy"

    @property
    def takes_partial_pairs(self) -> bool:
        """Whether it is trained on partial pairs."""
        partial = self.trained_by.takes_partial_pairs()
        return self.is_trained and partial and self.truncation != "whole"


def to_plain(section: Section) -> dict[str, Any]:
    """Return a section as JSON-able values, for keys, params and files."""
    return section.model_dump(mode="json")
