"""The plan's stages that use models: samples, calibration, cells, agreement, evaluation."""

from functools import partial

from jobs.sweep import search_inputs as inputs
from jobs.sweep.plan_stages import StageList
from jobs.sweep.stage_names import CellName, cell_names, samples_per_prompt
from jobs.sweep.steps import agreement, evaluation, samples, search
from jobs.sweep.variants import scoring_identity
from orchestrator.config.sections import to_plain
from orchestrator.config.tree import Config
from orchestrator.evaluation.metric import METRICS


def add_search(plan: StageList) -> None:
    """Add the shared samples, the calibration and a cell for each method and scorer."""
    config = plan.config
    n = samples_per_prompt(config)
    identity = {
        "decoding": to_plain(config.decoding),
        "seed": config.seed,
        "max_concurrent": config.search.max_concurrent,
        "engine": config.search.engine,
        "dtype": config.search.dtype,
        "length_limiting_models": plan.user_reward_model_fingerprints(),
    }
    if n:
        plan.add(
            "samples", samples.run_samples, partial(inputs.samples_inputs, n=n),
            {**identity, "n": n}, ("data", "policy"), unit="prompts",
            components=plan.kind_modules(),
        )  # fmt: skip
    if any(method.calibrates_entropy for method in config.search.all_methods.values()):
        plan.add(
            "calibration", samples.run_calibration, inputs.calibration_inputs, identity,
            ("pairs", "policy"), unit="prompts", components=plan.kind_modules(),
        )  # fmt: skip
    for cell in cell_names(config):
        _add_cell(plan, cell, identity)


def _add_cell(plan: StageList, cell: CellName, shared: dict[str, object]) -> None:
    config = plan.config
    method = config.search.all_methods[cell.method]
    identity = {
        **shared,
        "method": cell.method,
        "scorer": cell.scorer,
        "parameters": to_plain(method),
        "position": config.scoring.position,
        **scoring_identity(config, cell.scorer),
    }
    reads = ["data", "policy"]
    if cell.scorer is not None:
        reads.append(plan.stage_of(cell.scorer))
    reads += ["samples"] if method.shared_samples else []
    reads += ["pairs"] if method.calibrates_reward else []
    reads += ["calibration"] if method.calibrates_entropy else []
    plan.add(
        cell.stage, search.run_cell, partial(inputs.cell_inputs, cell=cell), identity, reads,
        files=plan.fingerprints(cell.scorer), unit="prompts",
        components=(
            type(method).__module__, *_task_and_metric_modules(config),
            *plan.kind_modules(cell.scorer),
        ),
    )  # fmt: skip


def add_evaluation(plan: StageList) -> None:
    """Add the agreement of each scorer, and the evaluation of all cells."""
    config = plan.config
    scored = list(dict.fromkeys(["orm", *config.scorers, *config.variants]))
    if "reference" in plan.models and "reference" not in scored:
        scored.append("reference")
    identity = {
        "evaluation": to_plain(config.evaluation),
        "seed": config.seed,
        "data": to_plain(config.data),
    }
    test_pairs = ["pairs", *(["samples"] if config.data.samples_pairs else [])]
    # the prefix scores use no judge
    measured = config.evaluation.model_dump(mode="json", exclude={"judges"})
    for scorer in scored:
        plan.add(
            f"agreement/{scorer}", agreement.run, partial(inputs.agreement_inputs, scorer=scorer),
            {**identity, "evaluation": measured, **scoring_identity(config, scorer)},
            (*test_pairs, "policy", plan.stage_of(scorer)),
            files=plan.fingerprints(scorer), unit="responses",
            components=(type(config.data).__module__, *plan.kind_modules(scorer)),
        )  # fmt: skip
    judge_modules = sorted({type(judge).__module__ for judge in config.evaluation.judges})
    cells = cell_names(config)
    reads = [cell.stage for cell in cells] + [f"agreement/{scorer}" for scorer in scored]
    plan.add(
        "evaluation", evaluation.run,
        partial(inputs.evaluation_inputs, cells=tuple(cells), scorers=tuple(scored)),
        {**identity, "position": config.scoring.position},
        ("data", *test_pairs, plan.stage_of("orm"), *reads),
        unit="tables",
        components=(
            *_task_and_metric_modules(config), *judge_modules, *plan.kind_modules(*scored),
        ),
    )  # fmt: skip


def _task_and_metric_modules(config: Config) -> tuple[str, ...]:
    return tuple(sorted({kind.__module__ for kind in (type(config.data), *METRICS.values())}))
