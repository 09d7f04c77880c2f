"""Step 7: search. The shared samples, CARDS' calibration, a cell for each method and scorer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs.steps.backends import WHOLE, policy_of, reward_of, searched
from jobs.steps.readers import readers, refused
from jobs.steps.responses import (
    cell_figures,
    read_drawn,
    write_curve,
    write_drawn,
    write_responses,
)
from jobs.steps.sweep import Figures, Step, Sweep
from orchestrator.config.decoding import CardsConfig
from orchestrator.data.rejects import refuse, write_rejects
from orchestrator.data.tables import read_pairs_table, read_prompts
from orchestrator.engines.checkpoints import Dtype
from orchestrator.randomness import stream_key
from orchestrator.records import Prompt, Reject
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scored_token import end_tokens, scored_token
from orchestrator.search.batches import BatchBackend
from orchestrator.search.best_of_n import BestOfNParameters, SamplesState
from orchestrator.search.cards import CardsParameters
from orchestrator.search.engines import Policy, Reward, SampleRequest
from orchestrator.search.lockstep import run_waves
from orchestrator.search.problem import Problem
from orchestrator.search.registry import METHODS
from orchestrator.search.shared_samples import best_of_first, first_samples, judge_samples
from orchestrator.stages.progress import Meter

OF_SAMPLES = ("bon", "weighted_bon", "vote")  # methods that choose among the shared samples
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
            rejects.append(refuse("prompts_test", number, reason, content))
        else:
            kept.append(prompt)
    return kept, rejects


def run_samples(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Draws the N samples of BoN, once for all scorers."""
    problems = problems_of(sweep, test_prompts(sweep))
    parameters = BestOfNParameters(n=step.options["n"])
    drawn = asyncio.run(
        run_waves(
            problems,
            lambda problem, policy, reward: _drawn(problem, policy, reward, parameters),
            BatchBackend(policy_of(sweep, sweep.config.search.dtype)),
            wave_size=sweep.config.search.wave_size,
            waves_in_flight=1,
            finished=_counter(meter, len(problems)),
        )
    )
    write_drawn(folder / "samples.parquet", problems, drawn)
    write_rejects(folder / "rejects.parquet", fitting_prompts(sweep)[1])
    lengths = [len(sample.token_ids) for state in drawn for sample in state.candidates]
    return {"metrics": {"samples": len(lengths), "mean_length": float(np.mean(lengths))}}


async def _drawn(
    problem: Problem, policy: Policy, reward: Reward, parameters: BestOfNParameters
) -> SamplesState:
    state = await METHODS["bon"].begun(problem, policy, reward, parameters)
    assert isinstance(state, SamplesState)
    return state


def run_calibration(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Entropies (nats) of the policy before each token of sampled responses, for CARDS' tau_u."""
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
    sampled = asyncio.run(policy_of(sweep, sweep.config.search.dtype).drawn(requests))
    entropies = [e for answer in sampled for e in answer.continuations[0].entropies]
    quantile = sweep.config.search.cards.entropy_quantile  # type: ignore[union-attr]
    meter.update(len(problems), len(problems))
    return {"metrics": {"entropy_threshold": float(np.quantile(entropies, quantile))}}


def run_cell(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Runs one method with one scorer over the test prompts; writes responses.parquet."""
    method, scorer = step.options["method"], step.options["scorer"]
    prompts = test_prompts(sweep, step.options["prompts"])
    problems = problems_of(sweep, prompts)
    parameters = _parameters(sweep, method, scorer)
    if scorer is not None:
        chat = chat_of(sweep.scorer(scorer))
        problems = [
            replace(problem, reward_prompt_ids=chat.reward_prompt_ids(prompt.messages))
            for problem, prompt in zip(problems, prompts, strict=True)
        ]
    counter, dtype = _counter(meter, len(problems)), sweep.config.search.dtype
    if method in OF_SAMPLES or not sweep.config.cluster.search_actors:
        found = asyncio.run(
            run_waves(
                problems,
                _start(sweep, method, parameters),
                BatchBackend(
                    policy_of(sweep, dtype),
                    None if scorer is None else reward_of(sweep, scorer, dtype),
                ),
                wave_size=sweep.config.search.wave_size,
                finished=counter,
            )
        )
    else:
        found = searched(sweep, method, parameters, scorer, problems, counter)
    responses = found
    if method == "bon":
        write_curve(folder / "curve.parquet", sweep, prompts, found, scorer)
        responses = [best_of_first(judged, parameters.n) for judged in found]
    write_responses(folder / "responses.parquet", sweep, prompts, responses, scorer)
    shown = {} if parameters is None else dict(vars(parameters))
    shown["end_tokens"] = end_tokens(sweep.chat("policy"))
    if scorer is not None:
        shown["scored_token"] = scored_token(sweep.scorer(scorer), sweep.config.scoring.position)
    return cell_figures(sweep, step, prompts, responses, folder, shown)


def _start(sweep: Sweep, method: str, parameters: Any) -> Callable[..., Any]:
    """What is started for each problem; BoN and the votes go on from the shared samples.

    Its outcome is a Response, but for BoN what was judged: every smaller n can be told from it.
    """
    if method not in OF_SAMPLES:
        return METHODS[method].bind(parameters)
    drawn = read_drawn(sweep.file("samples", "samples.parquet"))
    chat = sweep.chat("policy")

    def judge(problem: Problem, policy: Policy, reward: Reward) -> Any:
        shared = first_samples(drawn[problem.prompt_id], parameters.n)
        return judge_samples(problem, policy, reward, shared)

    def begun(problem: Problem) -> SamplesState:
        state = first_samples(drawn[problem.prompt_id], parameters.n)
        return replace(
            state, texts=tuple(chat.response_text(one.token_ids) for one in state.candidates)
        )

    if method == "bon":
        return judge

    return METHODS[method].bind(parameters, begun=begun)


def _parameters(sweep: Sweep, method: str, scorer: str | None) -> Any:
    """The method's parameters; CARDS' thresholds by quantile where no number is given."""
    if method in ("base", "greedy"):
        return METHODS[method].parameters()
    section = getattr(sweep.config.search, method)
    if isinstance(section, CardsConfig):
        return _cards(sweep, section, str(scorer))
    return METHODS[method].parameters(**section.model_dump(exclude={"prompts"}))


def _cards(sweep: Sweep, section: CardsConfig, scorer: str) -> CardsParameters:
    entropy, target, beta = section.entropy_threshold, section.target_reward, section.beta
    if entropy is None:
        marker = sweep.store.marker(sweep.stages["calibration"])
        entropy = marker["figures"]["metrics"]["entropy_threshold"]
    if target is None or beta is None:
        rewards = _calibration_rewards(sweep, scorer)
        target = float(np.quantile(rewards, section.target_quantile)) if target is None else target
        beta = float(np.std(rewards)) if beta is None else beta
    return CardsParameters(
        target_reward=target,
        beta=beta,
        alpha=section.alpha,
        entropy_threshold=entropy,
        segment_cap=section.segment_cap,
        max_rejections=section.max_rejections,
    )


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
