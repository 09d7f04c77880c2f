"""The inputs of the steps that make models, resolved when a step runs."""

from jobs.sweep.length_limits import LengthLimitingModels
from jobs.sweep.runtime.workspace import Workspace
from jobs.sweep.steps.data import DataInputs
from jobs.sweep.steps.implicit_pairs import SPLITS, ImplicitPairsInputs
from jobs.sweep.steps.pairs import PairsInputs
from jobs.sweep.steps.partial_pairs import MakePartialPairsInputs
from jobs.sweep.steps.policy import PolicyInputs
from jobs.sweep.steps.reward_models import (
    HeldOut,
    ImplicitInputs,
    PartialPairsInputs,
    WholePairsInputs,
)
from orchestrator.config.truncations import tlt_is_matched, truncations_of


def data_inputs(workspace: Workspace) -> DataInputs:
    """Return the inputs of the data."""
    return DataInputs(workspace.config.data, workspace.config.seed)


def policy_inputs(workspace: Workspace) -> PolicyInputs:
    """Return the inputs of the policy."""
    config = workspace.config
    return PolicyInputs(
        task=config.data,
        data_folder=workspace.files.folder("data"),
        architecture=config.models.architecture,
        vocabulary=config.models.vocabulary,
        seed=config.seed,
        max_new_tokens=config.decoding.max_new_tokens,
        optimization=config.training.policy,
        trainer=workspace.trainer("policy"),
    )


def pairs_inputs(workspace: Workspace) -> PairsInputs:
    """Return the inputs of the preference pairs."""
    config = workspace.config
    return PairsInputs(
        task=config.data,
        folder=workspace.files.folder("data"),
        length_limiting_models=length_limiting_models(workspace),
        chat=workspace.models.chat("policy"),
        engines=workspace.engines(),
        seed=config.seed,
        max_new_tokens=config.decoding.max_new_tokens,
    )


def orm_or_reference_inputs(workspace: Workspace, name: str) -> WholePairsInputs:
    """Return the inputs of the ORM or of the reference."""
    training = workspace.config.training
    return WholePairsInputs(
        pairs=workspace.files.file("pairs", f"pairs_{name}.parquet"),
        held_out=_held_out(workspace, "orm" if name == "reference" else "reference"),
        chat=workspace.models.chat("policy"),
        start="policy_to_reward",
        checkpoint=workspace.models.checkpoint("policy"),
        optimization=training.reference if name == "reference" else training.orm,
        trainer=workspace.trainer(name),
    )


def make_partial_pairs_inputs(workspace: Workspace) -> MakePartialPairsInputs:
    """Return the inputs of the stage that makes partial pairs."""
    config, models = workspace.config, workspace.models
    return MakePartialPairsInputs(
        pairs=workspace.files.file("pairs", "pairs_prm.parquet"),
        tokenizer_checkpoint=models.checkpoint("orm"),
        fold_system=config.chat.fold_system,
        reference=models.scorer("reference"),
        partial=config.partial,
        truncations=truncations_of(config.variants),
        tlt_is_matched=tlt_is_matched(config.variants),
        weight_max=config.weight.max,
        position=config.scoring.position,
        seed=config.seed,
        resources=workspace.resources,
    )


def implicit_pairs_inputs(
    workspace: Workspace, needs_unrelated_response: bool
) -> ImplicitPairsInputs:
    """Return the inputs of the stage that builds the training rows of implicit PRMs."""
    files, held_out = workspace.files, _held_out(workspace, "reference")
    return ImplicitPairsInputs(
        pairs=[files.file("pairs", f"pairs_{split}.parquet") for split in SPLITS],
        held_out=held_out.files,
        max_held_out_pairs=held_out.count,
        chat=workspace.models.chat("policy"),
        engines=workspace.engines(),
        needs_unrelated_response=needs_unrelated_response,
    )


def control_inputs(workspace: Workspace, name: str) -> WholePairsInputs:
    """Return the inputs of a control: the ORM trained further on whole responses.

    It takes as many steps as the variant that it controls for, with the ORM's batch size.
    """
    config, models = workspace.config, workspace.models
    variant, batch_size = config.variants[name], config.training.orm.batch_size
    return WholePairsInputs(
        pairs=workspace.files.file("pairs", "pairs_prm.parquet"),
        held_out=_held_out(workspace, "reference"),
        chat=models.chat("orm"),
        start="reward",
        checkpoint=models.checkpoint("orm"),
        optimization=config.training.prm.model_copy(update={"batch_size": batch_size}),
        trainer=workspace.trainer(f"variants/{name}"),
        objective=variant.objective,
        beta=variant.beta,
        steps=int(workspace.files.metrics(f"variants/{variant.match}")["steps"]),
        reading=config.models.reading("orm"),
    )


def prm_inputs(workspace: Workspace, name: str) -> PartialPairsInputs:
    """Return the inputs of a process reward model on partial pairs."""
    config, models, files = workspace.config, workspace.models, workspace.files
    variant, max_partial_pairs = config.variants[name], None
    if variant.match is not None:
        max_partial_pairs = int(files.metrics(f"variants/{variant.match}")["partial_pairs"])
    return PartialPairsInputs(
        partial_pairs=files.file("partial_pairs", "partial_pairs.parquet"),
        truncation=variant.truncation,
        weight=variant.weight,
        weight_max=config.weight.max,
        normalize=config.weight.normalize,
        seed=config.seed,
        max_partial_pairs=max_partial_pairs,
        held_out=_held_out(workspace, "reference"),
        chat=models.chat("orm"),
        checkpoint=models.checkpoint("orm"),
        optimization=config.training.prm,
        objective=variant.objective,
        beta=variant.beta,
        reading=config.models.reading("orm"),
        trainer=workspace.trainer(f"variants/{name}"),
    )


def implicit_inputs(workspace: Workspace, name: str) -> ImplicitInputs:
    """Return the inputs of an implicit PRM."""
    variant, files = workspace.config.variants[name], workspace.files
    return ImplicitInputs(
        examples=files.file("implicit_pairs", "examples.parquet"),
        held_out=files.file("implicit_pairs", "held_out.parquet"),
        objective=variant.objective,
        checkpoint=workspace.models.checkpoint("policy"),
        beta=variant.beta,
        optimization=workspace.config.training.implicit,
        trainer=workspace.trainer(f"variants/{name}"),
    )


def length_limiting_models(workspace: Workspace) -> LengthLimitingModels:
    """Return the policy and the user's reward models, whose contexts limit prompts and pairs."""
    models = workspace.models
    return LengthLimitingModels(
        models.checkpoint("policy"), workspace.config.chat.fold_system, models.scorers_of_user()
    )


def _held_out(workspace: Workspace, split: str) -> HeldOut:
    """Return held-out pairs for a training: those of ``split``, which trains another model.

    So the prompts are unseen. If ``split`` is empty (its model is a user's checkpoint), the test
    pairs are used.
    """
    config, files = workspace.config, workspace.files
    names = [f"pairs_{name}.parquet" for name in (split, "test")]
    return HeldOut(
        [files.file("pairs", name) for name in names],
        config.training.evaluation_pairs,
        config.evaluation.agreement_grid,
    )
