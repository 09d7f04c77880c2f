"""The plan's stages that make models: data, policy, pairs, reward models, PRMs."""

from typing import Any

from jobs.sweep.plan_stages import StageList
from jobs.sweep.steps import data, implicit_pairs, pairs, partial_pairs, policy, reward_models
from jobs.sweep.training import training_identity
from jobs.sweep.variants import variant_identity, variant_inputs
from orchestrator.config.sections import to_plain
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.stages.identity import fingerprint


def add_models(plan: StageList, model: str | None) -> None:
    """Add the stages up to the models; ``model`` is the one that is trained, None: all."""
    config = plan.config
    _add_data(plan)
    _add_policy(plan)
    plan.add("pairs", pairs, pairs.run, _pairs_identity(plan), ("data", "policy"), unit="prompts",
              components=(type(config.data).__module__,))  # fmt: skip
    _add_outcome(plan, "orm")
    partial = any(v.takes_partial_pairs for v in config.variants.values())
    if config.models.reference or partial or model == "reference":
        _add_outcome(plan, "reference")
    if partial:
        _add_partial_pairs(plan)
    _add_implicit_pairs(plan)
    _add_variants(plan)


def _add_data(plan: StageList) -> None:
    task = plan.config.data
    plain = to_plain(task)
    files = {name: fingerprint(str(plain[name])) for name in task.file_fields}
    identity = {"data": plain, "seed": plan.config.seed}
    plan.add("data", data, data.run, identity, (), files=files, unit="rows",
              components=(type(task).__module__,))  # fmt: skip


def _add_policy(plan: StageList) -> None:
    given = plan.config.models.policy
    if given is None:
        identity = training_identity(plan.config, "policy")
        identity["architecture"] = to_plain(plan.config.models.architecture)
        identity["vocabulary"] = plan.config.models.vocabulary
        plan.add("policy", policy, policy.run, identity, ("data",), checkpoint=True,
                  unit="steps", components=(LanguageModelling.__module__,))  # fmt: skip
    plan.add_model("policy", "policy", given)


def _pairs_identity(plan: StageList) -> dict[str, Any]:
    return {
        **{name: to_plain(getattr(plan.config, name)) for name in ("data", "decoding")},
        "context": plan.config.models.architecture.max_position_embeddings,
        "readers": {} if plan.config.data.samples_pairs else plan.readers(),
        "seed": plan.config.seed,
    }


def _add_outcome(plan: StageList, name: str) -> None:
    config = plan.config
    given = getattr(config.models, name)
    if given is None:
        plan.add(name, reward_models, reward_models.run_outcome,
                  training_identity(config, name), ("pairs", "policy"), checkpoint=True,
                  unit="steps", components=(BradleyTerry.__module__,))  # fmt: skip
    plan.add_model(name, name, given)


def _add_partial_pairs(plan: StageList) -> None:
    config = plan.config
    truncations = partial_pairs.truncations_of(config)
    identity = {
        "partial": to_plain(config.partial),
        "weight_max": config.weight.max,
        "truncations": truncations,
        "tlt_is_matched": partial_pairs.tlt_is_matched(config),
        "position": config.scoring.position,
        "seed": config.seed,
    }
    plan.add("partial_pairs", partial_pairs, partial_pairs.run, identity,
              ("pairs", "orm", "reference"), unit="pairs",
              options={"truncations": truncations})  # fmt: skip


def _add_implicit_pairs(plan: StageList) -> None:
    config = plan.config
    implicit = [v.trained_by for v in config.variants.values() if v.is_trained_from_policy]
    if not implicit:
        return
    unrelated = any(objective.needs_unrelated for objective in implicit)
    identity = {"unrelated": unrelated, "held_out": config.training.evaluation_pairs}
    plan.add("implicit_pairs", implicit_pairs, implicit_pairs.run, identity,
              ("pairs", "policy"), unit="pairs",
              options={"unrelated": unrelated})  # fmt: skip


def _add_variants(plan: StageList) -> None:
    config = plan.config
    # A variant that matches another one comes after it.
    ordered = sorted(config.variants, key=lambda name: config.variants[name].match is not None)
    for name in ordered:
        variant = config.variants[name]
        stage = f"variants/{name}"
        if variant.is_trained:
            plan.add(stage, reward_models, reward_models.run_variant,
                      variant_identity(config, name), variant_inputs(variant),
                      unit="steps", checkpoint=True, options={"variant": name},
                      components=(variant.trained_by.__module__,))  # fmt: skip
            plan.add_model(name, stage, None)
        else:  # a density ratio without a numerator of its own takes the policy
            plan.add_model(name, "policy", variant.checkpoint or config.models.policy)
