"""The plan's stages that use models: samples, calibration, cells, agreement, evaluation."""

from typing import Any

from jobs.sweep.plan_stages import StageList
from jobs.sweep.steps import agreement, evaluation, search
from jobs.sweep.variants import scoring_identity
from orchestrator.config.sections import to_plain
from orchestrator.evaluation.metric import METRICS
from orchestrator.search.method import SearchMethod


def add_search(plan: StageList) -> None:
    """Add the shared samples, the calibration and a cell for each method and scorer."""
    config = plan.config
    methods = config.search.all_methods
    n = max(method.shared_samples for method in methods.values())
    n = n or 2 * config.evaluation.pairs_per_prompt
    decoding = {"decoding": to_plain(config.decoding), "seed": config.seed,
                "max_concurrent": config.search.max_concurrent, "engine": config.search.engine,
                "dtype": config.search.dtype, "readers": plan.readers()}  # fmt: skip
    plan.add("samples", search, search.run_samples, {**decoding, "n": n}, ("data", "policy"),
              unit="prompts", options={"n": n})  # fmt: skip
    if any(method.calibrates_entropy for method in methods.values()):
        plan.add("calibration", search, search.run_calibration, decoding,
                  ("pairs", "policy"), unit="prompts")  # fmt: skip
    for name, method in methods.items():
        for scorer in config.scorers if method.needs_scorer else [None]:
            _add_cell(plan, name, method, scorer, decoding)


def _add_cell(
    plan: StageList,
    name: str,
    method: SearchMethod[Any],
    scorer: str | None,
    decoding: dict[str, Any],
) -> None:
    identity = {**decoding, "method": name, "scorer": scorer, "parameters": to_plain(method),
                "position": plan.config.scoring.position,
                **scoring_identity(plan.config, scorer)}  # fmt: skip
    inputs = ["data", "policy"]
    if scorer is not None:
        inputs.append(plan.stage_of(scorer))
    inputs += ["samples"] if method.shared_samples else []
    inputs += ["pairs"] if method.calibrates_reward else []
    inputs += ["calibration"] if method.calibrates_entropy else []
    options = {"method": name, "scorer": scorer, "prompts": method.prompts}
    plan.add(evaluation.cell_stage(name, scorer), search, search.run_cell, identity, inputs,
              files=plan.given(scorer), unit="prompts", options=options,
              components=(type(method).__module__, *_measuring(plan)))  # fmt: skip


def add_evaluation(plan: StageList) -> None:
    """Add the agreement of each scorer, and the evaluation of all cells."""
    config = plan.config
    scored = list(dict.fromkeys(["orm", *config.scorers, *config.variants]))
    scored += ["reference"] if "reference" in plan.sweep.models else []
    identity = {"evaluation": to_plain(config.evaluation), "seed": config.seed,
                "data": to_plain(config.data)}  # fmt: skip
    for scorer in dict.fromkeys(scored):
        plan.add(f"agreement/{scorer}", agreement, agreement.run,
                  {**identity, **scoring_identity(plan.config, scorer)},
                  ("pairs", "samples", "policy", plan.stage_of(scorer)),
                  files=plan.given(scorer), unit="responses",
                  options={"scorer": scorer},
                  components=(type(config.data).__module__,))  # fmt: skip
    cells = [
        {"stage": step.stage.name, **step.options}
        for step in plan.steps
        if step.stage.name.startswith("cells/")
    ]
    inputs = [cell["stage"] for cell in cells]
    inputs += [f"agreement/{scorer}" for scorer in dict.fromkeys(scored)]
    plan.add("evaluation", evaluation, evaluation.run,
              {**identity, "position": config.scoring.position},
              ("data", "pairs", "samples", plan.stage_of("orm"), *inputs),
              unit="tables",
              options={"cells": cells, "scored": list(dict.fromkeys(scored))},
              components=_measuring(plan))  # fmt: skip


def _measuring(plan: StageList) -> tuple[str, ...]:
    """The modules of the task, its judges and all metrics: what is computed of responses."""
    judges = [type(judge) for judge in plan.config.evaluation.judges]
    kinds = [type(plan.config.data), *judges, *METRICS.values()]
    return tuple(sorted({kind.__module__ for kind in kinds}))
