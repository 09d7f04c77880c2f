"""Scorer specs from the config."""

from orchestrator.config.sections import Variant
from orchestrator.config.tree import Config
from orchestrator.scorers.kind import SCORER_KINDS
from orchestrator.scorers.spec import ScorerSpec


def outcome_spec(config: Config, model: str, checkpoint: str) -> ScorerSpec:
    """Return the spec of the ORM or the reference reward model."""
    reading = config.models.reading(model)
    return ScorerSpec(
        checkpoint,
        branch_memory_mib=config.scoring.branch_memory_mib,
        finished_position=config.scoring.finished,
        fold_system=config.chat.fold_system,
        preset=reading.preset,
        score_at=reading.score_at,
        score_label=reading.score_label,
    )


def variant_spec(
    config: Config, variant: Variant, checkpoint: str, base: str | None = None
) -> ScorerSpec:
    """Return the spec of a process reward model.

    A model that is trained from the ORM is scored at the same token as the ORM.

    Args:
        config: the config.
        variant: the process reward model.
        checkpoint: its checkpoint.
        base: the denominator of a log ratio.
    """
    score_at, kind = variant.score_at, variant.scorer_kind
    if variant.is_trained and kind and "score_at" in SCORER_KINDS[kind].uses:
        score_at = config.models.reading("orm").score_at
    return ScorerSpec(
        checkpoint,
        kind=kind,
        aggregation=variant.aggregation,
        step_delimiter=variant.step_delimiter,
        step_tag=variant.step_tag,
        base=base,
        beta=variant.beta,
        branch_memory_mib=config.scoring.branch_memory_mib,
        score_label=variant.score_label,
        preset=variant.preset,
        step_format=variant.format,
        score_token=variant.score_token,
        finished_position=config.scoring.finished,
        score_at=score_at,
        fold_system=config.chat.fold_system,
        options=variant.options,
    )
