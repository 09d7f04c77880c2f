"""What a variant of the config means: what decides its training, and how it scores."""

from jobs.sweep.training import training_identity
from orchestrator.config.sections import TRAINED_KIND, Variant, to_plain
from orchestrator.config.tree import Config
from orchestrator.scorers.formats import PRESETS
from orchestrator.scorers.kind import SCORER_KINDS, make_kind

# Fields that a training reads if its objective names them.
TRAINED_FIELDS = ("truncation", "weight", "match", "beta")
# Fields that say how a variant scores, not what is trained.
SCORING_FIELDS = ("kind", "base", "aggregation", "step_delimiter", "step_tag", "score_label",
                  "preset", "format", "score_token", "score_at", "options")  # fmt: skip


def variant_identity(config: Config, name: str) -> dict[str, object]:
    """Return what of the config decides the training of a variant."""
    variant = config.variants[name]
    trained = to_plain(variant)
    for part in SCORING_FIELDS:
        trained.pop(part)
    for part in TRAINED_FIELDS:
        if part not in variant.trained_by.fields:
            trained.pop(part)
    if variant.is_trained_from_policy:
        return {
            **training_identity(config, "implicit"),
            "variant": {"name": name, **trained},
        }
    return {
        **training_identity(config, "prm"),
        "variant": {"name": name, **trained},
        "normalize": config.weight.normalize,
        "orm_batch_size": config.training.orm.batch_size,
    }


def variant_inputs(variant: Variant) -> list[str]:
    """Return the stages that the training of a variant reads."""
    if variant.is_trained_from_policy:
        return ["pairs", "policy", "implicit_pairs"]
    inputs = ["pairs", "orm"]
    inputs += ["partial_pairs"] if variant.truncation != "whole" else []
    return inputs + ([f"variants/{variant.match}"] if variant.match else [])


def scoring_identity(config: Config, scorer: str | None) -> dict[str, object]:
    """Return what decides scores besides the checkpoint; part of the keys of stages that use it."""
    if scorer is None:
        return {}
    finished: dict[str, object] = {"finished": config.scoring.finished}
    variant = config.variants.get(scorer)
    if variant is None:
        return finished
    plain = {part: to_plain(variant)[part] for part in SCORING_FIELDS}
    fields = {part: value for part, value in plain.items() if value not in (None, {})}
    if variant.options:
        fields["options"] = make_kind(str(variant.kind), variant.options).model_dump(mode="json")
    fields |= {"beta": variant.beta} if variant.has_base else {}
    return {**finished, "scoring": fields}


def kind_modules(config: Config, scorer: str) -> set[str]:
    """Return the modules that define the kind of a scorer, whose sources are part of stage keys.

    If the kind is detected from a checkpoint, all kinds count: another kind could claim it.
    """
    variant = config.variants.get(scorer)
    if variant is not None:
        kind, preset = variant.scorer_kind, variant.preset
    else:
        is_trained = getattr(config.models, scorer) is None
        kind, preset = TRAINED_KIND if is_trained else None, config.models.reading(scorer).preset
    if kind is None and preset is not None:
        kind = PRESETS[preset].kind
    kinds = SCORER_KINDS.values() if kind is None else [SCORER_KINDS[kind]]
    return {kind.__module__ for kind in kinds}
