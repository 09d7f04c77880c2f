"""The stages ``cells/METHOD/SCORER``: search the test prompts with one method and one scorer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from jobs.sweep.length_limits import TestPrompts
from jobs.sweep.steps.samples import CALIBRATION_PROMPTS, SearchInputs, counter
from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.choices import Engine, Position
from orchestrator.data.tables import read_pairs_table
from orchestrator.evaluation.flops import Sizes
from orchestrator.evaluation.response_table import (
    ResponseRows,
    cell_means,
    write_curve,
    write_responses,
)
from orchestrator.scorers.loading import chat_of
from orchestrator.scorers.parameters import scorer_parameters
from orchestrator.scorers.scored_token import end_tokens, scored_token
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.calibration import Calibration
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches
from orchestrator.search.sample_files import read_samples
from orchestrator.search.shared_samples import best_of_first, first_samples, score_samples
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import Task


@dataclass(frozen=True)
class CellInputs:
    """Inputs of a cell.

    Attributes:
        search: inputs that all searches share.
        prompts: test prompts; the method may use only the first ones.
        method: search method with its fields.
        scorer: reward model; None for a method without one.
        position: where a prefix is scored.
        task: grades the responses.
        engine: engine of the search actors.
        in_actors: whether search actors run the method; else the pools of policy and scorer.
        samples: file of the shared samples; None if the method does not use them.
        entropies: file of the calibration; None if the method does not use it.
        reward_calibration_pairs: file of pairs whose responses calibrate the rewards; None as
            above.
    """

    search: SearchInputs
    prompts: TestPrompts
    method: AnySearchMethod
    scorer: ScorerSpec | None
    position: Position
    task: Task
    engine: Engine
    in_actors: bool
    samples: Path | None
    entropies: Path | None
    reward_calibration_pairs: Path | None


def run_cell(inputs: CellInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Run one method with one scorer over the test prompts; write responses.parquet."""
    search, scorer = inputs.search, inputs.scorer
    prompts = inputs.prompts.fitting(inputs.method.prompts)
    problems = search.problems(prompts)
    method = inputs.method.calibrated(_calibration(inputs))
    if scorer is not None:
        chat = chat_of(scorer)
        problems = [
            replace(problem, reward_prompt_ids=chat.reward_prompt_ids(prompt.messages))
            for problem, prompt in zip(problems, prompts, strict=True)
        ]
    outcomes = _searched(inputs, method, problems, counter(progress, len(problems)))
    rows = ResponseRows(search.chat, _sizes(inputs), inputs.task)
    if method.has_curve:
        write_curve(folder / "curve.parquet", rows, prompts, outcomes)
        outcomes = [best_of_first(judged, method.shared_samples) for judged in outcomes]
    write_responses(folder / "responses.parquet", rows, prompts, outcomes)
    parameters = method.settings
    parameters["end_tokens"] = end_tokens(search.chat)
    if scorer is not None:
        parameters["scored_token"] = scored_token(scorer, inputs.position)
    means = cell_means(folder / "responses.parquet", outcomes, inputs.task.counted)
    return {"metrics": means, "parameters": parameters}


def _searched(
    inputs: CellInputs,
    method: AnySearchMethod,
    problems: Sequence[Problem],
    count: Callable[[object], None],
) -> list[Any]:
    """Return the outcomes in the order of the problems: responses or scored samples."""
    search, scorer = inputs.search, inputs.scorer
    if inputs.in_actors:
        return list(
            search.engines.search(
                method, scorer, problems, count, search.max_concurrent, inputs.engine, search.dtype
            )
        )
    policy = search.engines.policy(search.dtype)
    reward = None if scorer is None else search.engines.reward(scorer, search.dtype)
    return asyncio.run(
        run_searches(
            problems,
            _start(inputs, method),
            BatchBackend(policy, reward),
            max_concurrent=search.max_concurrent,
            on_outcome=count,
            batchers=2,
        )
    )


def _start(inputs: CellInputs, method: AnySearchMethod) -> Callable[..., Any]:
    """Return the coroutine that searches a problem; best-of-N and votes use the shared samples.

    The outcome is a Response. For a method with a curve, the outcome is the scored samples, which
    determine the response for every smaller n.
    """
    if inputs.samples is None:
        return method.run
    samples, chat = read_samples(inputs.samples), inputs.search.chat

    def judge(problem: Problem, policy: Policy, reward: Reward) -> Any:
        shared = first_samples(samples[problem.prompt_id], method.shared_samples)
        return score_samples(problem, policy, reward, shared)

    def choose(problem: Problem, policy: Policy, reward: Reward) -> Any:
        shared = first_samples(samples[problem.prompt_id], method.shared_samples)
        texts = tuple(chat.response_text(sample.token_ids) for sample in shared.candidates)
        return method.run(problem, policy, reward, resume=replace(shared, texts=texts))

    return judge if method.has_curve else choose


def _calibration(inputs: CellInputs) -> Calibration:
    """Return the measurements from which the method's thresholds are computed."""
    entropies: list[float] = []
    rewards: list[float] = []
    if inputs.entropies is not None:
        entropies = pq.read_table(inputs.entropies)["entropy"].to_pylist()
    if inputs.reward_calibration_pairs is not None and inputs.scorer is not None:
        # Whole responses to prompts that are not the test's.
        pairs = read_pairs_table(inputs.reward_calibration_pairs)[:CALIBRATION_PROMPTS]
        responses = [(p.prompt, text) for p in pairs for text in (p.chosen, p.rejected)]
        engines, dtype = inputs.search.engines, inputs.search.dtype
        rewards = engines.whole_rewards(inputs.scorer, responses, dtype)
    return Calibration(entropies, rewards)


def _sizes(inputs: CellInputs) -> Sizes:
    """Return N of the policy and of the scorer, from the headers of their checkpoints."""
    policy = matrix_parameters(inputs.search.engines.checkpoint, language_head=True)
    return Sizes(policy, 0.0 if inputs.scorer is None else scorer_parameters(inputs.scorer))
