"""The plan's stages that make models: data, policy, pairs, reward models, PRMs."""

from functools import partial

from jobs.sweep import model_inputs as inputs
from jobs.sweep.plan_stages import StageList
from jobs.sweep.steps import data, implicit_pairs, pairs, partial_pairs, policy, reward_models
from jobs.sweep.training import training_identity
from jobs.sweep.variants import variant_identity, variant_inputs
from orchestrator.config.sections import Variant, to_plain
from orchestrator.config.truncations import tlt_is_matched, truncations_of
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.language_modelling import LanguageModelling
from orchestrator.stages.identity import fingerprint


def add_models(plan: StageList, model: str | None) -> None:
    """Add the stages up to the models; ``model`` is the one that is trained, None: all."""
    config = plan.config
    _add_data(plan)
    _add_policy(plan)
    kinds = () if config.data.samples_pairs else plan.kind_modules()
    plan.add(
        "pairs", pairs.run, inputs.pairs_inputs, _pairs_identity(plan), ("data", "policy"),
        unit="prompts", components=(type(config.data).__module__, *kinds),
    )  # fmt: skip
    _add_orm_or_reference(plan, "orm")
    partial_pairs_needed = any(v.takes_partial_pairs for v in config.variants.values())
    if config.models.reference or partial_pairs_needed or model == "reference":
        _add_orm_or_reference(plan, "reference")
    if partial_pairs_needed:
        _add_partial_pairs(plan)
    _add_implicit_pairs(plan)
    _add_variants(plan)


def _add_data(plan: StageList) -> None:
    task = plan.config.data
    plain = to_plain(task)
    files = {name: fingerprint(str(plain[name])) for name in task.file_fields}
    identity = {"data": plain, "seed": plan.config.seed}
    plan.add(
        "data", data.run, inputs.data_inputs, identity, (), files=files, unit="rows",
        components=(type(task).__module__,),
    )  # fmt: skip


def _add_policy(plan: StageList) -> None:
    models = plan.config.models
    if models.policy is None:
        identity = training_identity(plan.config, "policy")
        identity["architecture"] = to_plain(models.architecture)
        identity["vocabulary"] = models.vocabulary
        plan.add(
            "policy", policy.run, inputs.policy_inputs, identity, ("data",), keeps_checkpoint=True,
            unit="steps", components=(LanguageModelling.__module__,),
        )  # fmt: skip
    plan.add_model("policy", "policy", models.policy)


def _pairs_identity(plan: StageList) -> dict[str, object]:
    config = plan.config
    return {
        "data": to_plain(config.data),
        "decoding": to_plain(config.decoding),
        "context": config.models.architecture.max_position_embeddings,
        "length_limiting_models": {}
        if config.data.samples_pairs
        else plan.user_reward_model_fingerprints(),
        "seed": config.seed,
    }


def _add_orm_or_reference(plan: StageList, name: str) -> None:
    config = plan.config
    checkpoint = config.models.reference if name == "reference" else config.models.orm
    if checkpoint is None:
        plan.add(
            name, reward_models.run_whole_pairs, partial(inputs.orm_or_reference_inputs, name=name),
            training_identity(config, name), ("pairs", "policy"), keeps_checkpoint=True,
            unit="steps", components=(BradleyTerry.__module__,),
        )  # fmt: skip
    plan.add_model(name, name, checkpoint)


def _add_partial_pairs(plan: StageList) -> None:
    config = plan.config
    identity = {
        "partial": to_plain(config.partial),
        "weight_max": config.weight.max,
        "truncations": truncations_of(config.variants),
        "tlt_is_matched": tlt_is_matched(config.variants),
        "position": config.scoring.position,
        "seed": config.seed,
    }
    plan.add(
        "partial_pairs", partial_pairs.run, inputs.make_partial_pairs_inputs, identity,
        ("pairs", "orm", "reference"), unit="pairs", components=plan.kind_modules("reference"),
    )  # fmt: skip


def _add_implicit_pairs(plan: StageList) -> None:
    config = plan.config
    implicit = [v.trained_by for v in config.variants.values() if v.is_trained_from_policy]
    if not implicit:
        return
    unrelated = any(objective.needs_unrelated for objective in implicit)
    identity = {"unrelated": unrelated, "held_out": config.training.evaluation_pairs}
    plan.add(
        "implicit_pairs", implicit_pairs.run,
        partial(inputs.implicit_pairs_inputs, needs_unrelated_response=unrelated), identity,
        ("pairs", "policy"), unit="pairs",
    )  # fmt: skip


def _add_variants(plan: StageList) -> None:
    config = plan.config
    # A variant that matches another one comes after it.
    ordered = sorted(config.variants, key=lambda name: config.variants[name].match is not None)
    for name in ordered:
        variant = config.variants[name]
        if variant.is_trained:
            _add_variant(plan, name, variant)
            plan.add_model(name, f"variants/{name}", None)
        else:  # without its own numerator, a density ratio uses the policy
            plan.add_model(name, "policy", variant.checkpoint or config.models.policy)


def _add_variant(plan: StageList, name: str, variant: Variant) -> None:
    """Add the training of a variant by its objective and truncation."""
    add = partial(
        plan.add, f"variants/{name}", config=variant_identity(plan.config, name),
        reads=variant_inputs(variant), unit="steps", keeps_checkpoint=True,
        components=(variant.trained_by.__module__,),
    )  # fmt: skip
    if variant.is_trained_from_policy:
        add(run=reward_models.run_implicit, inputs=partial(inputs.implicit_inputs, name=name))
    elif variant.truncation == "whole":
        add(run=reward_models.run_whole_pairs, inputs=partial(inputs.control_inputs, name=name))
    else:
        add(run=reward_models.run_partial_pairs, inputs=partial(inputs.prm_inputs, name=name))
