"""Small sections of the config tree: data, models, training. Defaults are the embedded world's."""

from dataclasses import fields
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from orchestrator.choices import Aggregation, ScorerKind
from orchestrator.config.fields import (
    Count,
    CountOrNone,
    Flag,
    Index,
    Positive,
    Share,
    Text,
    Token,
    Whole,
)
from orchestrator.config.section import Section
from orchestrator.scorers.formats import StepFormat

Splitting = TypeVar("Splitting", bound="Section")


class HelpdeskData(Section):
    """The embedded world: prompts made by a seeded generator, disjoint between the splits."""

    task: Literal["helpdesk"] = "helpdesk"
    demonstrations: Count = 20_000
    orm_pairs: Count = 5_000
    reference_pairs: Count = 8_000
    prm_pairs: Count = 4_000
    test_prompts: Count = 300
    preference_sharpness: Positive = (
        1.5  # the better sample wins with probability sigma(this * gap)
    )


class HHData(Section):
    """HH-RLHF pairs from a JSONL or Parquet file, raw transcripts or parsed; split by prompt."""

    task: Literal["hh_rlhf"]
    pairs: Text
    policy_share: Share = 0.3
    orm_share: Share = 0.2
    reference_share: Share = 0.3
    test_prompts: Count = 100  # the prompts left over are the PRM's

    @model_validator(mode="after")
    def _leaves_the_prm_some(self) -> Self:
        return _with_room(self, "policy_share", "orm_share", "reference_share")


class AnswerData(Section):
    """Worked answers for the policy, right and wrong solutions as pairs, test questions."""

    task: Literal["gsm8k", "math"]  # the same but for the name: both read rows of either form
    demonstrations: Text  # question, answer; or problem, solution, answer
    pairs: Text  # prompt, chosen, rejected
    test: Text  # as demonstrations; questions that the pairs use are left out
    orm_share: Share = 0.3
    reference_share: Share = 0.4
    test_prompts: Count = 100

    @model_validator(mode="after")
    def _leaves_the_prm_some(self) -> Self:
        return _with_room(self, "orm_share", "reference_share")


def _with_room(data: Splitting, *names: str) -> Splitting:
    """Raises ValueError where the shares leave the PRM no prompts."""
    total = sum(getattr(data, name) for name in names)
    if total >= 1:
        raise ValueError(
            f"{' + '.join(names)} = {total:g}: the prompts left over are the PRM's; valid: under 1"
        )
    return data


Data = Annotated[HelpdeskData | HHData | AnswerData, Field(discriminator="task")]


class Architecture(Section):
    """The size of a Llama that is trained from scratch (LlamaConfig's field names)."""

    hidden_size: Count = 128
    intermediate_size: Count = 384
    num_hidden_layers: Count = 4
    num_attention_heads: Count = 4
    num_key_value_heads: Count = 4
    max_position_embeddings: Count = 256
    initializer_range: Annotated[Positive, Field(le=10)] = 0.06


PresetName = Literal[
    "math-shepherd", "qwen2.5-math-prm", "trl-prm", "skywork-o1-prm", "rlhflow-prm", "rlhflow-orm",
    "granite-math-prm", "qwen2.5-math-rm", "inf-orm", "nemotron-reward",
]  # fmt: skip


class Reading(Section):
    """How a given reward model is read, where its files do not tell (docs/public_models.md)."""

    preset: PresetName | None = None  # the family of public models that it belongs to
    score_at: Token | None = None  # token of the template's closing; null: the last one
    score_label: Index | None = None  # of a head of several labels, the index of the score


class ModelsConfig(Section):
    """Checkpoints (folders or hub names) to use instead of training: null trains one in the run."""

    policy: Text | None = None
    orm: Text | None = None
    reference: Text | None = None
    orm_reading: Reading = Reading()
    reference_reading: Reading = Reading()
    architecture: Architecture = Architecture()
    vocabulary: Count = 2_048  # entries of the byte-pair tokenizer made for real text

    @model_validator(mode="after")
    def _readings_are_of_checkpoints(self) -> Self:
        for name in ("orm", "reference"):
            reading = getattr(self, f"{name}_reading")
            if reading != Reading() and getattr(self, name) is None:
                raise ValueError(
                    f"{name}_reading: of a checkpoint alone, what the run trains is read as it was"
                    f" trained; valid: none, or give {name} as well"
                )
        return self

    def reading(self, model: str) -> Reading:
        """How the ORM or the reference is read; nothing is said of every other model."""
        readings = {"orm": self.orm_reading, "reference": self.reference_reading}
        return readings.get(model, Reading())


class Optimization(Section):
    """One training: AdamW, linear schedule (paper C.4); batch_size counts rows or partial pairs."""

    learning_rate: Positive
    batch_size: Count
    epochs: Count = 1
    max_steps: Count | None = None
    warmup_steps: CountOrNone = 0


class TrainingConfig(Section):
    """How models are trained, by Ray Train with DeepSpeed."""

    workers: Count = 2
    zero_stage: Annotated[int, Field(ge=0, le=3), Whole] = 1
    deepspeed: Text = "configs/deepspeed/default.json"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of autocast; weights are float32
    micro_batch_tokens: Count | None = None  # padded tokens of a forward; null: a worker's share
    gradient_checkpointing: Flag = False
    checkpoint_steps: Count | None = 500  # null writes none
    evaluation_pairs: CountOrNone = 128  # held-out pairs of reward models; 0: none
    evaluation_steps: Count | None = 100  # null evaluates at the end alone
    policy: Optimization = Optimization(learning_rate=3e-3, batch_size=64, max_steps=350)
    orm: Optimization = Optimization(learning_rate=1e-3, batch_size=32)
    reference: Optimization = Optimization(learning_rate=1e-3, batch_size=32)
    prm: Optimization = Optimization(learning_rate=5e-4, batch_size=128)
    implicit: Optimization = Optimization(learning_rate=1e-4, batch_size=32)  # batch in pairs

    @field_validator("policy", "orm", "reference", "prm", "implicit", mode="before")
    @classmethod
    def _over_the_default(cls, given: Any, info: ValidationInfo) -> Any:
        """One field of a training may be given alone: rate and batch have the defaults above."""
        if not isinstance(given, dict):
            return given
        default = cls.model_fields[str(info.field_name)].default
        return {"learning_rate": default.learning_rate, "batch_size": default.batch_size} | given


class Variant(Section):
    """A process reward model trained in the run, or a checkpoint of the user's own.

    By Bradley-Terry it is trained from the ORM; ``truncation`` whole is the control, the ORM
    trained on for as many steps. By the other objectives it is an implicit PRM, trained from the
    policy. A density ratio is not trained at all.
    """

    checkpoint: Text | None = None
    objective: Literal["bradley_terry", "dpo", "nca", "kto", "ce", "density_ratio"] = (
        "bradley_terry"
    )
    truncation: Literal["sst", "tlt", "whole"] = "sst"
    weight: Literal["reference", "none", "mask", "entropy", "shuffled"] = "reference"
    match: Text | None = (
        None  # variant whose steps (whole) or number of partial pairs (tlt) is matched
    )
    base: Text | None = None  # a log ratio's denominator; null: the policy of the run
    beta: Positive = 0.05  # factor of a log ratio; the implicit PRM's paper: 0.05
    kind: ScorerKind | None = None  # of a checkpoint
    aggregation: Aggregation | None = None
    step_delimiter: Text | None = None  # text that ends a step; null: the kind's own
    step_tag: Text | None = None
    score_label: Index | None = None  # of a checkpoint's head of several labels: the score's index
    preset: PresetName | None = None  # of a checkpoint: the family of public models
    format: StepFormat | None = None  # of a checkpoint: how it reads steps, where no preset says it
    score_token: Index | None = None  # of a language model: its logit
    score_at: Token | None = None  # token of the template's closing; null: the last one

    @field_validator("format", mode="before")
    @classmethod
    def _known_fields(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        valid = [field.name for field in fields(StepFormat)]
        unknown = [name for name in given if name not in valid]
        if unknown:
            raise ValueError(f"{unknown[0]}: no such field; valid: {', '.join(valid)}")
        try:
            return StepFormat(**given)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def is_log_ratio(self) -> bool:
        """Whether it scores by the log ratio of two language models."""
        return self.objective != "bradley_terry" or self.kind == "log_ratio"

    @property
    def is_trained(self) -> bool:
        """Whether the run trains it."""
        return self.checkpoint is None and self.objective != "density_ratio"

    @property
    def takes_partial_pairs(self) -> bool:
        """Whether it is trained on partial pairs."""
        return self.is_trained and self.objective == "bradley_terry" and self.truncation != "whole"


def to_plain(section: Section) -> dict[str, Any]:
    """A section as JSON-able values, for keys, params and files."""
    return section.model_dump(mode="json")
