"""The whole config: a tree of sections, and the checks between sections."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from orchestrator.config.counts import check_counts
from orchestrator.config.decoding import (
    ChatConfig,
    DecodingConfig,
    ScoringConfig,
    SearchConfig,
)
from orchestrator.config.errors import shown
from orchestrator.config.evaluation import EvaluationConfig
from orchestrator.config.machines import ClusterConfig, StorageConfig, TrackingConfig
from orchestrator.config.no_effect import (
    TRAINED_FIELDS,
    check_effects,
    log_ratio_settings,
    reward_model_settings,
)
from orchestrator.config.sections import (
    Data,
    ModelsConfig,
    Variant,
)
from orchestrator.config.training import TrainingConfig
from orchestrator.fields.section import Section
from orchestrator.fields.types import NAME_LENGTH, Count, Flag, Positive, Seed, Text
from orchestrator.objectives.objective import OBJECTIVES
from orchestrator.tasks.helpdesk.task import Helpdesk

OF_A_CHECKPOINT = ("score_label", "preset", "format", "score_token", "score_at")
BASE_MODELS = ("policy", "orm", "reference")  # models beside the variants
VARIANT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{NAME_LENGTH - 1}}}")
MOST_VARIANTS = 100
MOST_CUTS = 10_000  # mean number per pair: far more than a response has tokens


class PartialConfig(Section):
    """How preference pairs are truncated to partial pairs (section 4.1.1)."""

    preset: Literal["paper", "official"] = "paper"
    """How SST draws prefix lengths: `paper` as the paper says, in tokens; `official` as the public
    code does: white-space words, 1 to 10 lengths without replacement, and the full pair."""
    sst_k: Annotated[Count, Field(le=MOST_CUTS)] = 5
    """K of SST with preset `paper`: the number of lengths per pair is drawn from 0 to 2K (the
    paper: K = 5)."""


class WeightConfig(Section):
    """The reference weight w = 1/H of a partial pair (section 4.2)."""

    max: Positive | None = 10.0
    """Largest weight; the default 10 is reached where the reference scores differ by 3.87. null: no
    limit, as in the paper. Without a limit, few partial pairs dominate the loss."""
    normalize: Flag = False
    """Whether the weights of the kept partial pairs are scaled to mean 1, so that weighting does
    not act as a higher learning rate."""


def _default_variants() -> dict[str, Variant]:
    return {
        "orm_continued": Variant(truncation="whole", match="prm_sst"),
        "prm_sst": Variant(truncation="sst"),
        "prm_tlt": Variant(truncation="tlt", match="prm_sst"),
        "prm_no_reference": Variant(truncation="sst", weight="none"),
    }


def _over_default(default: dict[str, object], variant: dict[str, object]) -> dict[str, object]:
    """Merge a variant of the user over the default variant of the same name.

    Fields of the default that have no effect with the user's fields are dropped.
    """
    dropped: tuple[str, ...] = ("weight",) if variant.get("truncation") == "whole" else ()
    objective = str(variant.get("objective", Variant.model_fields["objective"].default))
    is_trained = variant.get("checkpoint") is None and objective in OBJECTIVES
    used = OBJECTIVES[objective].fields if is_trained else ()
    dropped += tuple(field for field in TRAINED_FIELDS if field not in used)
    return {n: value for n, value in default.items() if n not in dropped} | variant


def _check_objective(name: str, variant: Variant) -> None:
    """Raise ValueError for fields of a variant that contradict each other."""
    path = f"variants.{name}"
    if not (variant.trained_by.is_trained() or variant.checkpoint or variant.base):
        raise ValueError(
            f"{path}: a {variant.trained_by.label} needs `checkpoint`, `base` or both: what is not"
            " set is the policy, and the ratio of the policy to itself is always 1"
        )
    for field in OF_A_CHECKPOINT:
        value = getattr(variant, field)
        if value is not None and variant.has_base:
            raise ValueError(
                f"{path}.{field} = {shown(value)}: a log ratio compares two language models and"
                " does not use it; valid: null, or a reward model as `checkpoint`, with"
                f" {reward_model_settings()}"
            )
        if value is not None and variant.checkpoint is None:
            raise ValueError(
                f"{path}.{field} = {shown(value)}: needs a reward model as `checkpoint`; valid:"
                " null, or set `checkpoint`"
            )
    if variant.base is not None and not variant.has_base:
        raise ValueError(
            f"{path}.base = {shown(variant.base)}: needs a log ratio; valid: {log_ratio_settings()}"
        )
    if variant.base is not None and variant.is_trained:
        raise ValueError(
            f"{path}.base = {shown(variant.base)}: a model that the run trains is compared with"
            " the policy, from which it starts; valid: null, or set `checkpoint` too"
        )


class Config(Section):
    """One experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=NAME_LENGTH)] = (
        "helpdesk"
    )
    """Name of the run in MLflow and of its output folder."""
    seed: Seed = 0
    """Seed of every random draw: splits, initial weights, labels, prefix lengths, samples."""
    output_dir: Text | None = None
    """Output folder, or a URI that fsspec supports. null: `runs/<name>` in the working
    directory."""
    data: Data = Helpdesk()
    """The task and its data."""
    models: ModelsConfig = ModelsConfig()
    """Checkpoints to use instead of training, and the size of models trained from scratch."""
    partial: PartialConfig = PartialConfig()
    """How preference pairs are truncated to partial pairs."""
    weight: WeightConfig = WeightConfig()
    """The reference weight of a partial pair."""
    training: TrainingConfig = TrainingConfig()
    """How models are trained."""
    variants: dict[str, Variant] = Field(
        default_factory=_default_variants, max_length=MOST_VARIANTS
    )
    """Process reward models by name, each a scorer. They are merged over four defaults; null leaves
    one of these out."""
    chat: ChatConfig = ChatConfig()
    """How chat templates render conversations."""
    scoring: ScoringConfig = ScoringConfig()
    """At which token a reward model's score is read."""
    decoding: DecodingConfig = DecodingConfig()
    """How the policy samples."""
    search: SearchConfig = SearchConfig()
    """Search methods and their scorers."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation of cells and of prefix scores."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow keeps the runs."""
    cluster: ClusterConfig = ClusterConfig()
    """Processes and their resources."""
    storage: StorageConfig = StorageConfig()
    """Which files are kept, and the disk space that must stay free."""

    @property
    def scorers(self) -> list[str]:
        """The scorers of the search cells: `search.scorers`, or the ORM and all variants."""
        return list(self.search.scorers or ["orm", *self.variants])

    @field_validator("variants", mode="before")
    @classmethod
    def _over_the_defaults(cls, value: object) -> object:
        """Merge the variants over the default ones; null leaves out a default variant."""
        if not isinstance(value, dict):
            return value
        defaults = _default_variants()
        merged: dict[str, object] = dict(defaults)
        for name, variant in value.items():
            if isinstance(variant, dict) and name in defaults:
                default = defaults[name].model_dump(exclude_unset=True)
                variant = _over_default(default, variant)
            merged[name] = variant
        return {name: variant for name, variant in merged.items() if variant is not None}

    @model_validator(mode="after")
    def _variants_match(self) -> Self:
        for name in self.variants:
            if name in BASE_MODELS or not VARIANT_NAME.fullmatch(name):
                raise ValueError(
                    f"variants: {shown(name)}: not a valid name; valid: at most {NAME_LENGTH}"
                    " letters, digits, _ and -, the first a letter or digit, except"
                    f" {', '.join(BASE_MODELS)}"
                )
        for name, variant in self.variants.items():
            _check_objective(name, variant)
            if variant.match is not None and variant.match not in self.variants:
                raise ValueError(
                    f"variants.{name}.match = {shown(variant.match)}: no such variant;"
                    f" valid: {self._valid_matches(name)}"
                )
            if variant.match is not None and self.variants[variant.match].match is not None:
                raise ValueError(
                    f"variants.{name}.match = {shown(variant.match)}: matches another variant"
                    " itself; valid: a variant without `match`"
                )
            if variant.match is not None and not self.variants[variant.match].is_trained:
                raise ValueError(
                    f"variants.{name}.match = {shown(variant.match)}: is not trained in this run,"
                    " so there is no number of training steps to match; valid: a variant that this"
                    " run trains"
                )
            if variant.match is not None and variant.takes_partial_pairs:
                self._check_counted(name, variant.match)
            if variant.truncation == "whole" and variant.match is None and variant.is_trained:
                raise ValueError(
                    f"variants.{name}: truncation 'whole' needs `match`; valid: the variant whose"
                    " number of training steps it shares"
                )
        return self

    def _check_counted(self, name: str, match: str) -> None:
        """Raise ValueError if the matched variant is not trained on partial pairs."""
        if not self.variants[match].takes_partial_pairs:
            raise ValueError(
                f"variants.{name}.match = {shown(match)}: is not trained on partial pairs, whose"
                f" number must be matched; valid: {self._valid_matches(name)}"
            )

    def _valid_matches(self, name: str) -> str:
        """Return the names of the variants that a variant can match, for a message."""
        partial = self.variants[name].takes_partial_pairs
        valid = [
            other
            for other, variant in self.variants.items()
            if other != name
            and variant.match is None
            and (variant.takes_partial_pairs if partial else variant.is_trained)
        ]
        return ", ".join(valid) or "none of these variants"

    @model_validator(mode="after")
    def _scorers_exist(self) -> Self:
        valid = ["orm", *self.variants]
        if self.models.reference or any(v.takes_partial_pairs for v in self.variants.values()):
            valid.insert(1, "reference")
        unknown = [name for name in self.search.scorers or [] if name not in valid]
        if unknown:
            raise ValueError(
                f"search.scorers = {shown(unknown[0])}: no such scorer; valid: {', '.join(valid)}"
            )
        return self

    @model_validator(mode="after")
    def _votes_have_answers(self) -> Self:
        for entry in self.search.entries:
            if entry.method.needs_answers and not self.data.answers:
                raise ValueError(
                    f"{entry.path}: a vote needs final answers, and responses of task"
                    f" {self.data.task_name()!r} have none; valid: {entry.without}"
                )
        return self

    @model_validator(mode="after")
    def _judges_can_judge(self) -> Self:
        for number, judge in enumerate(self.evaluation.judges):
            if reason := judge.refusal(self.data):
                raise ValueError(
                    f"evaluation.judges.{number} = {judge.judge_name()}: {reason}; valid: another"
                    " judge, or none"
                )
        return self

    @model_validator(mode="after")
    def _samples_make_the_test_pairs(self) -> Self:
        needed = 2 * self.evaluation.pairs_per_prompt
        if not self.data.samples_pairs:
            return self
        for entry in self.search.entries:
            count = entry.method.shared_samples
            if 0 < count < needed:
                raise ValueError(
                    f"{entry.path}.n = {count}: the samples of a test prompt also make"
                    f" evaluation.pairs_per_prompt = {self.evaluation.pairs_per_prompt} pairs;"
                    f" valid: at least {needed}, or a smaller evaluation.pairs_per_prompt"
                )
        return self

    @model_validator(mode="after")
    def _counts_go_together(self) -> Self:
        check_counts(self)
        return self

    @model_validator(mode="after")
    def _all_that_is_set_is_read(self) -> Self:
        check_effects(self)
        return self
