"""Step 7: search. The shared samples, CARDS' calibration, a cell for each method and scorer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.sweep.backends import WHOLE, policy_of, reward_of, searched
from jobs.sweep.readers import readers, refused
from jobs.sweep.responses import (
    cell_figures,
    read_drawn,
    write_curve,
    write_drawn,
    write_responses,
)
from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.choices import Dtype
from orchestrator.data.rejects import make_reject, write_rejects
from orchestrator.data.tables import read_pairs_table, read_prompts
from orchestrator.randomness import stream_key
from orchestrator.records import Prompt, Reject
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scored_token import end_tokens, scored_token
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.calibration import Calibration
from orchestrator.search.engines import Policy, Reward, SampleRequest
from orchestrator.search.method import SearchMethod
from orchestrator.search.methods.best_of_n import BestOfN
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches
from orchestrator.search.shared_samples import best_of_first, first_samples, score_samples
from orchestrator.stages.progress import Meter

ENTROPIES = "entropies.parquet"
CALIBRATION_PROMPTS = 128  # of the PRM's prompts: whole responses that thresholds are quantiles of


def problems_of(sweep: Sweep, prompts: Sequence[Prompt]) -> list[Problem]:
    """The prompts in the policy's token ids."""
    chat, config = sweep.chat("policy"), sweep.config
    limit = config.decoding.max_new_tokens
    return [Problem(p.prompt_id, chat.prompt_ids(p.messages), config.seed, limit) for p in prompts]


def test_prompts(sweep: Sweep, count: int | None = None) -> list[Prompt]:
    """The first ``count`` test prompts that leave room for a response in the policy's context."""
    kept, _ = fitting_prompts(sweep)
    return kept[:count]


def fitting_prompts(sweep: Sweep) -> tuple[list[Prompt], list[Reject]]:
    """The test prompts, without those too long for a model, and those as rejects."""
    models, room = readers(sweep), sweep.config.decoding.max_new_tokens
    kept, rejects = [], []
    for number, prompt in enumerate(read_prompts(sweep.file("data", "prompts_test.parquet"))):
        reason = refused(models, prompt.messages, (), room)
        if reason:
            content = prompt.messages[-1]["content"]
            rejects.append(make_reject("prompts_test", number, reason, content))
        else:
            kept.append(prompt)
    return kept, rejects


def run_samples(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Draws the N samples of BoN, once for all scorers."""
    problems = problems_of(sweep, test_prompts(sweep))
    method = BestOfN(n=step.options["n"])
    drawn = asyncio.run(
        run_searches(
            problems,
            method.initial,
            BatchBackend(policy_of(sweep, sweep.config.search.dtype)),
            max_concurrent=sweep.config.search.max_concurrent,
            batchers=1,
            on_outcome=_counter(meter, len(problems)),
        )
    )
    write_drawn(folder / "samples.parquet", problems, drawn)
    write_rejects(folder / "rejects.parquet", fitting_prompts(sweep)[1])
    lengths = [len(sample.token_ids) for state in drawn for sample in state.candidates]
    return {"metrics": {"samples": len(lengths), "mean_length": float(np.mean(lengths))}}


def run_calibration(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes the policy's entropies (nats) before each token of sampled responses."""
    pairs = read_pairs_table(sweep.file("pairs", "pairs_prm.parquet"))
    prompts = [pair.prompt for pair in pairs[:CALIBRATION_PROMPTS]]
    problems = problems_of(sweep, prompts)
    requests = [
        SampleRequest(
            p.prompt_ids,
            (),
            (stream_key(p.seed, p.prompt_id, "calibration"),),
            p.max_new_tokens,
            entropies=True,
        )
        for p in problems
    ]
    sampled = asyncio.run(policy_of(sweep, sweep.config.search.dtype).sample_all(requests))
    entropies = [e for answer in sampled for e in answer.continuations[0].entropies]
    pq.write_table(pa.table({"entropy": pa.array(entropies, pa.float64())}), folder / ENTROPIES)
    meter.update(len(problems), len(problems))
    return {"metrics": {"mean_entropy": float(np.mean(entropies)), "tokens": len(entropies)}}


def run_cell(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Runs one method with one scorer over the test prompts; writes responses.parquet."""
    method, scorer = sweep.config.search.all_methods[step.options["method"]], step.options["scorer"]
    prompts = test_prompts(sweep, step.options["prompts"])
    problems = problems_of(sweep, prompts)
    method = method.calibrated(_calibration(sweep, method, scorer))
    if scorer is not None:
        chat = chat_of(sweep.scorer(scorer))
        problems = [
            replace(problem, reward_prompt_ids=chat.reward_prompt_ids(prompt.messages))
            for problem, prompt in zip(problems, prompts, strict=True)
        ]
    counter, dtype = _counter(meter, len(problems)), sweep.config.search.dtype
    if method.shared_samples or not sweep.config.cluster.search_actors:
        found = asyncio.run(
            run_searches(
                problems,
                _start(sweep, method),
                BatchBackend(
                    policy_of(sweep, dtype),
                    None if scorer is None else reward_of(sweep, scorer, dtype),
                ),
                max_concurrent=sweep.config.search.max_concurrent,
                on_outcome=counter,
                batchers=2,
            )
        )
    else:
        found = searched(sweep, method, scorer, problems, counter)
    responses = found
    if method.has_curve:
        write_curve(folder / "curve.parquet", sweep, prompts, found, scorer)
        responses = [best_of_first(judged, method.shared_samples) for judged in found]
    write_responses(folder / "responses.parquet", sweep, prompts, responses, scorer)
    shown = method.settings
    shown["end_tokens"] = end_tokens(sweep.chat("policy"))
    if scorer is not None:
        shown["scored_token"] = scored_token(sweep.scorer(scorer), sweep.config.scoring.position)
    return cell_figures(sweep, step, prompts, responses, folder, shown)


def _start(sweep: Sweep, method: SearchMethod[Any]) -> Callable[..., Any]:
    """What is started for each problem; BoN and the votes go on from the shared samples.

    Its outcome is a Response, but for a method with a curve what was judged: every smaller n can be
    told from it.
    """
    if not method.shared_samples:
        return method.run
    drawn = read_drawn(sweep.file("samples", "samples.parquet"))
    chat = sweep.chat("policy")

    def judge(problem: Problem, policy: Policy, reward: Reward) -> Any:
        shared = first_samples(drawn[problem.prompt_id], method.shared_samples)
        return score_samples(problem, policy, reward, shared)

    def choose(problem: Problem, policy: Policy, reward: Reward) -> Any:
        shared = first_samples(drawn[problem.prompt_id], method.shared_samples)
        texts = tuple(chat.response_text(sample.token_ids) for sample in shared.candidates)
        return method.run(problem, policy, reward, resume=replace(shared, texts=texts))

    return judge if method.has_curve else choose


def _calibration(sweep: Sweep, method: SearchMethod[Any], scorer: str | None) -> Calibration:
    """The measurements that the method's thresholds are computed from."""
    entropies, rewards = [], []
    if method.calibrates_entropy:
        entropies = pq.read_table(sweep.file("calibration", ENTROPIES))["entropy"].to_pylist()
    if method.calibrates_reward and scorer is not None:
        rewards = _calibration_rewards(sweep, scorer)
    return Calibration(entropies, rewards)


def _calibration_rewards(sweep: Sweep, scorer: str) -> list[float]:
    """The scorer's rewards of whole responses to prompts that are not the test's."""
    pairs = read_pairs_table(sweep.file("pairs", "pairs_prm.parquet"))[:CALIBRATION_PROMPTS]
    texts = [(p.prompt, t) for p in pairs for t in (p.chosen, p.rejected)]
    return whole_rewards(sweep, scorer, texts, sweep.config.search.dtype)


def whole_rewards(
    sweep: Sweep, scorer: str, texts: Sequence[tuple[Prompt, str]], dtype: Dtype = "float32"
) -> list[float]:
    """r(x, y) of whole responses, given as texts."""
    scores = asyncio.run(reward_of(sweep, scorer, dtype).prefix_scores(texts, [WHOLE]))
    return [score[0] for score in scores]


def _counter(meter: Meter, total: int) -> Callable[[object], None]:
    meter.update(0, total)
    return lambda outcome: meter.advance()
