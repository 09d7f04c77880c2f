"""The inputs of the steps that use models, resolved when a step runs."""

from collections.abc import Sequence

from jobs.sweep.length_limits import TestPrompts
from jobs.sweep.model_inputs import length_limiting_models
from jobs.sweep.runtime.workspace import Workspace
from jobs.sweep.stage_names import CellName
from jobs.sweep.steps.agreement import AgreementInputs, TestPairs
from jobs.sweep.steps.evaluation import CellFiles, EvaluationInputs, ScoredPairs
from jobs.sweep.steps.samples import (
    ENTROPIES,
    SAMPLES,
    CalibrationInputs,
    SamplesInputs,
    SearchInputs,
)
from jobs.sweep.steps.search import CellInputs
from orchestrator.evaluation.statistics import Resampling


def samples_inputs(workspace: Workspace, n: int) -> SamplesInputs:
    """Return the inputs of the shared samples, ``n`` of each prompt."""
    return SamplesInputs(_search(workspace), _test_prompts(workspace), n)


def calibration_inputs(workspace: Workspace) -> CalibrationInputs:
    """Return the inputs of the calibration."""
    pairs = workspace.files.file("pairs", "pairs_prm.parquet")
    return CalibrationInputs(_search(workspace), pairs)


def cell_inputs(workspace: Workspace, cell: CellName) -> CellInputs:
    """Return the inputs of a cell."""
    config, files = workspace.config, workspace.files
    method = config.search.all_methods[cell.method]
    pairs_file = files.file("pairs", "pairs_prm.parquet") if method.calibrates_reward else None
    return CellInputs(
        search=_search(workspace),
        prompts=_test_prompts(workspace),
        method=method,
        scorer=None if cell.scorer is None else workspace.models.scorer(cell.scorer),
        position=config.scoring.position,
        task=config.data,
        engine="vllm" if config.search.engine == "vllm" else "transformers",
        in_actors=not method.shared_samples and bool(config.cluster.search_actors),
        samples=files.file("samples", SAMPLES) if method.shared_samples else None,
        entropies=files.file("calibration", ENTROPIES) if method.calibrates_entropy else None,
        reward_calibration_pairs=pairs_file,
    )


def agreement_inputs(workspace: Workspace, scorer: str) -> AgreementInputs:
    """Return the inputs of a scorer's prefix scores."""
    return AgreementInputs(
        pairs=_test_pairs(workspace),
        scorer=workspace.models.scorer(scorer),
        engines=workspace.engines(),
        grid=workspace.config.evaluation.agreement_grid,
    )


def evaluation_inputs(
    workspace: Workspace, cells: Sequence[CellName], scorers: Sequence[str]
) -> EvaluationInputs:
    """Return the inputs of the evaluation of some cells, and of some scorers' prefix scores."""
    config, files, models = workspace.config, workspace.files, workspace.models
    return EvaluationInputs(
        cells=[_cell_files(workspace, cell) for cell in cells],
        scored={
            name: ScoredPairs(models.scorer(name), files.file(f"agreement/{name}", "scores.npz"))
            for name in scorers
        },
        pairs=_test_pairs(workspace),
        grid=config.evaluation.agreement_grid,
        orm=models.scorer("orm"),
        engines=workspace.engines(),
        task=config.data,
        judges=config.evaluation.judges,
        position=config.scoring.position,
        resampling=Resampling(config.seed, config.evaluation.bootstrap_samples),
    )


def _cell_files(workspace: Workspace, cell: CellName) -> CellFiles:
    """The files and parameters that a cell's stage left."""
    files = workspace.files
    marker = files.store.marker(files.stages[cell.stage])
    return CellFiles(
        method=cell.method,
        scorer=cell.scorer,
        folder=files.folder(cell.stage),
        parameters=marker["figures"].get("parameters", {}),
        has_curve=workspace.config.search.all_methods[cell.method].has_curve,
    )


def _search(workspace: Workspace) -> SearchInputs:
    config = workspace.config
    return SearchInputs(
        engines=workspace.engines(),
        chat=workspace.models.chat("policy"),
        seed=config.seed,
        max_new_tokens=config.decoding.max_new_tokens,
        max_concurrent=config.search.max_concurrent,
        dtype=config.search.dtype,
    )


def _test_prompts(workspace: Workspace) -> TestPrompts:
    return TestPrompts(
        workspace.files.file("data", "prompts_test.parquet"), length_limiting_models(workspace),
        workspace.config.decoding.max_new_tokens,
    )  # fmt: skip


def _test_pairs(workspace: Workspace) -> TestPairs:
    config, files = workspace.config, workspace.files
    return TestPairs(
        task=config.data,
        pairs=files.folder("pairs"),
        samples=files.file("samples", SAMPLES) if config.data.samples_pairs else None,
        prompts=_test_prompts(workspace),
        chat=workspace.models.chat("policy"),
        per_prompt=config.evaluation.pairs_per_prompt,
        seed=config.seed,
    )
