"""Fields that a config sets although they have no effect with its other settings.

A field without effect is misleading, so it is an error. This applies only to fields that a file, an
override or a call sets, not to defaults; null counts as not set.

There are two cases. A field that contradicts another one is refused (``check_effects``). The
settings of a training whose model is a checkpoint stay valid, so that one override is enough to
try another model; the job lists them when it starts (``superseded``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

from orchestrator.config.errors import shown
from orchestrator.config.sections import Variant
from orchestrator.fields.section import Section
from orchestrator.objectives.objective import log_ratio_names, variant_objectives
from orchestrator.scorers.kind import SCORER_KINDS, kinds_in_order, kinds_that_use
from orchestrator.search.method import AnySearchMethod

if TYPE_CHECKING:  # the tree calls this module
    from orchestrator.config.tree import Config

TRAINED_FIELDS = ("truncation", "weight", "match")  # used to train a variant from the ORM
INVERSE_ENTROPY_WEIGHTS = ("reference", "entropy", "shuffled")  # kinds of weight that are 1/H
OPTIMIZATIONS = ("policy", "orm", "reference", "prm", "implicit")
OF_THE_POLICY = (
    "models.architecture", "models.vocabulary", "training.policy",
)  # fmt: skip
OF_EVERY_TRAINING = (
    "training.workers", "training.zero_stage", "training.deepspeed", "training.precision",
    "training.micro_batch_tokens", "training.gradient_checkpointing", "training.checkpoint_steps",
    "cluster.train_worker_cpus", "cluster.train_worker_gpus", "storage.checkpoints_kept",
)  # fmt: skip


@dataclass(frozen=True)
class NoEffect:
    """A field without effect.

    Attributes:
        field: its path in the tree, as in an override.
        reason: why it has no effect, as a clause.
        valid: the settings with which it has an effect.
    """

    field: str
    reason: str
    valid: str

    def message(self, value: object) -> str:
        """Return the error for the field with a value."""
        return (
            f"{self.field} = {shown(value)}: it has no effect: {self.reason};"
            f" valid: {self.valid}; or remove {self.field}"
        )


def check_effects(config: "Config") -> None:
    """Check that every field that is set has an effect.

    Raises:
        ValueError: one line for each field without effect.
    """
    lines = [line for item in fields_without_effect(config) for line in messages(config, item)]
    if lines:
        raise ValueError("\n".join(lines))


def messages(config: "Config", item: NoEffect) -> list[str]:
    """Return the error for a field without effect; none if the field is not set."""
    value = explicit_value(config, item.field)
    return [] if value is None else [item.message(value) + _or_null(config, item.field)]


def _or_null(section: Section, field: str) -> str:
    """Return how to unset a field that another file sets; "" if it cannot be null."""
    *sections, name = field.split(".")
    value: Any = section
    for part in sections:
        value = _part(value, part)
    nullable = NoneType in get_args(type(value).model_fields[name].annotation)
    return ", or set it to null" if nullable else ""


def explicit_value(section: Section, field: str) -> object:
    """Return the value if the field was set explicitly (file, override or call), else None."""
    value: Any = section
    for part in field.split("."):
        if isinstance(value, dict | list):
            value = _part(value, part)
        elif value is None or part not in value.model_fields_set:
            return None
        else:
            value = getattr(value, part)
    return value


def _part(value: Any, name: str) -> Any:
    """Return a field of a section, a variant by name, or an entry of a list by index."""
    if isinstance(value, list):
        return value[int(name)]
    return value.get(name) if isinstance(value, dict) else getattr(value, name)


def fields_without_effect(config: "Config") -> Iterator[NoEffect]:
    """Yield the fields without effect in this config, set or not."""
    yield from _of_partial_pairs(config)
    yield from _of_training(config)
    yield from _of_search(config)
    task = config.data.task_name()
    if config.data.vocabulary():
        why = f"the tokens of data.task {task!r} are whole words"
        yield NoEffect("models.vocabulary", why, "another data.task")
    if not config.data.samples_pairs:
        why = f"the held-out pairs of data.task {task!r} come with the data"
        yield NoEffect("evaluation.pairs_per_prompt", why, "data.task helpdesk")
    for name, variant in config.variants.items():
        yield from no_effect_of_variant(f"variants.{name}", variant)


def no_effect_of_variant(
    section: str, variant: Variant, kind: str | None = None
) -> Iterator[NoEffect]:
    """Yield the fields of one variant without effect.

    Args:
        section: path of the variant in the tree.
        variant: its fields.
        kind: kind of the scorer, if it is read from the files of the checkpoint.
    """
    objective = variant.trained_by
    why = f"objective {variant.objective!r} trains on whole pairs"
    if not objective.is_trained():
        why = f"a {objective.label} is not trained"
    elif variant.checkpoint is not None:
        why = "a variant with a checkpoint is not trained"
    for name in TRAINED_FIELDS:
        if not variant.is_trained or name not in objective.fields:
            readers = [n for n, o in variant_objectives().items() if name in o.fields]
            valid = f"objective {' or '.join(readers)} without a checkpoint"
            yield NoEffect(f"{section}.{name}", why, valid)
        elif name == "weight" and variant.truncation == "whole":
            why = "truncation 'whole' gives all pairs the same weight"
            yield NoEffect(f"{section}.weight", why, "truncation sst or tlt")
    scorer_kind = variant.scorer_kind
    is_read = scorer_kind is not None and "beta" in SCORER_KINDS[scorer_kind].uses
    if not is_read and not (variant.is_trained and "beta" in objective.fields):
        why = "only a log ratio has this factor"
        yield NoEffect(f"{section}.beta", why, log_ratio_settings())
    yield from _of_scoring(section, variant, kind)


def log_ratio_settings() -> str:
    """Return the settings under which a variant scores by a log ratio."""
    return f"objective {', '.join(log_ratio_names())}, or kind {kinds_that_use('beta')}"


def reward_model_settings() -> str:
    """Return the settings under which a variant with a checkpoint scores by a reward model."""
    objectives = [n for n, o in variant_objectives().items() if not o.is_log_ratio]
    kinds = [n for n, kind in kinds_in_order().items() if kind.needs_base]
    return f"objective {' or '.join(objectives)} and without kind {' or '.join(kinds)}"


def _of_scoring(section: str, variant: Variant, kind: str | None) -> Iterator[NoEffect]:
    """Yield the fields about scoring that have no effect with the kind of the scorer."""
    if (trained := variant.objective_kind) is not None:
        kind = trained
        if variant.kind not in (None, kind):
            why = f"a variant of objective {variant.objective!r} is of kind {kind}"
            others = [n for n, o in variant_objectives().items() if not o.is_log_ratio]
            valid = f"objective {' or '.join(others)} with a checkpoint"
            yield NoEffect(f"{section}.kind", why, valid)
    kind = kind or variant.kind
    if kind is None:
        return
    reads = SCORER_KINDS[kind].uses
    if "step_tag" not in reads:
        why = f"a scorer of kind {kind} has no step tag"
        yield NoEffect(f"{section}.step_tag", why, f"kind {kinds_that_use('step_tag')}")
    if "step_delimiter" not in reads and variant.aggregation is None:
        why = f"a scorer of kind {kind} without an aggregation has no steps"
        valid = f"an aggregation, or kind {kinds_that_use('step_delimiter')}"
        yield NoEffect(f"{section}.step_delimiter", why, valid)


def _of_partial_pairs(config: "Config") -> Iterator[NoEffect]:
    trained = [v for v in config.variants.values() if v.takes_partial_pairs]
    if not any(v.truncation == "sst" for v in trained):
        for name in ("preset", "sst_k"):
            why = "no variant is trained on partial pairs of SST"
            yield NoEffect(f"partial.{name}", why, "a variant with truncation sst")
    elif config.partial.preset == "official":
        why = "partial.preset 'official' draws 1 to 10 prefix lengths"
        yield NoEffect("partial.sst_k", why, "partial.preset paper")
    if not any(v.weight in INVERSE_ENTROPY_WEIGHTS for v in trained):
        for name in ("max", "normalize"):
            why = "no variant is trained with weights 1/H"
            kinds = " or ".join(INVERSE_ENTROPY_WEIGHTS)
            yield NoEffect(f"weight.{name}", why, f"a variant with weight {kinds}")
    if not trained:
        why = "no variant is trained on partial pairs"
        yield NoEffect("cluster.reference_actors", why, "a variant with truncation sst or tlt")


def _of_training(config: "Config") -> Iterator[NoEffect]:
    training = config.training
    if training.evaluation_pairs == 0:
        why, valid = "training.evaluation_pairs is 0", "training.evaluation_pairs over 0"
        yield NoEffect("training.evaluation_steps", why, valid)
    for name in OPTIMIZATIONS:
        if getattr(training, name).max_steps is not None:
            most = f"training.{name}.max_steps"
            yield NoEffect(
                f"training.{name}.epochs", f"{most} is the number of steps", f"{most} null"
            )


def _of_search(config: "Config") -> Iterator[NoEffect]:
    entries = config.search.entries
    if not any(entry.method.needs_scorer for entry in entries):
        yield NoEffect(
            "search.scorers", "no search method needs scores", "a search method that needs scores"
        )
    for entry in entries:
        yield from no_effect_of_method(entry.path, entry.method)


def no_effect_of_method(section: str, method: AnySearchMethod) -> Iterator[NoEffect]:
    """Yield the fields of a method without effect; ``section`` is the path of the method."""
    for field, (why, valid) in method.unused_fields.items():
        yield NoEffect(f"{section}.{field}", why, valid)


def superseded(config: "Config") -> dict[str, list[str]]:
    """Return the fields that are set for trainings that the run does not have, by reason."""
    models, trained = config.models, [v for v in config.variants.values() if v.is_trained]
    by_orm = [v for v in trained if v.is_trained_from_orm]
    has_whole = any(v.truncation == "whole" for v in by_orm)  # it has the batch size of the ORM
    needs_reference = any(v.takes_partial_pairs for v in trained)
    trains_reference = models.reference is None and needs_reference
    trains_reward_models = models.orm is None or trains_reference or bool(trained)
    groups = {
        "models.policy is set": (models.policy is None, OF_THE_POLICY),
        "models.orm is set": (models.orm is None or has_whole, ("training.orm",)),
        "models.reference is set": (models.reference is None, ("training.reference",)),
        "no variant needs the reference": (
            needs_reference or models.reference is not None, ("training.reference",),
        ),
        "no variant is trained from the ORM": (bool(by_orm), ("training.prm",)),
        "no implicit PRM is trained": (len(by_orm) < len(trained), ("training.implicit",)),
        "no reward model is trained": (
            trains_reward_models, ("training.evaluation_pairs", "training.evaluation_steps"),
        ),
        "no model is trained": (
            trains_reward_models or models.policy is None, OF_EVERY_TRAINING,
        ),
    }  # fmt: skip
    unused = {
        reason: [field for field in fields if explicit_value(config, field) is not None]
        for reason, (is_read, fields) in groups.items()
        if not is_read
    }
    return {reason: fields for reason, fields in unused.items() if fields}
