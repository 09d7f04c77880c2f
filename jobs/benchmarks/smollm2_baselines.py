"""Run the baselines of `jobs/bench.py search --model smollm2`: code without this project.

The baselines are plain `generate` of transformers, vLLM alone, and the loop of search-and-learn:
one prompt at a time, vLLM samples the steps of beams, and plain transformers scores all candidates
without a cache. Each runs in a separate process on all cores, and returns tokens and seconds.
"""

import os
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from jobs.benchmarks.search_loop import Loop
from jobs.benchmarks.smollm2_cases import SmolLM2Case, SmolLM2Models
from orchestrator.conversations.chat import load_chat
from orchestrator.engines.vllm.language_model import language_model
from orchestrator.engines.vllm.process import SETTINGS
from orchestrator.search.engines import Ids
from orchestrator.search.problem import Problem

TokensAndSeconds = tuple[int, float]  # tokens sampled, seconds
TEXTS_PER_FORWARD = 16


def generated(
    models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run plain `generate` of transformers, with all samples of a prompt at once."""
    tokens, start = 0, time.perf_counter()
    for problem in problems:
        tokens += sum(map(len, _samples(models, case, problem)))
    return tokens, time.perf_counter() - start


def generated_and_scored(
    models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run best-of-N by plain `generate` and plain scoring, one prompt at a time."""
    reward, closing = _plain_reward(models), load_chat(models.policy).closing_ids
    tokens, start = 0, time.perf_counter()
    for problem in problems:
        samples = _samples(models, case, problem)
        _scores(reward, [problem.prompt_ids + y + closing for y in samples])
        tokens += sum(map(len, samples))
    return tokens, time.perf_counter() - start


def vllm_alone(
    models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run vLLM alone, with all samples of all prompts in one call."""
    from vllm import SamplingParams

    llm = _vllm(models)
    llm.reset_prefix_cache()
    parameters = SamplingParams(
        n=case.method.shared_samples, temperature=1.0, max_tokens=case.new_tokens, detokenize=False
    )
    start = time.perf_counter()
    outputs = llm.generate(_prompts([p.prompt_ids for p in problems]), parameters, use_tqdm=False)
    tokens = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    return tokens, time.perf_counter() - start


def step_loop(
    models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run beam search over steps as search-and-learn does: vLLM samples, scores use no cache."""
    llm, reward, chat = _vllm(models), _plain_reward(models), load_chat(models.policy)
    method: Any = case.method
    tokens, start = 0, time.perf_counter()
    for problem in problems:
        beams: list[tuple[Ids, bool]] = [((), False)] * method.beams
        while any(not ended and len(y) < case.new_tokens for y, ended in beams):
            finished, steps = _steps(llm, problem, beams, method, case.new_tokens)
            tokens += sum(len(new) for _, new, _ in steps)
            every = [*finished, *((y + new, end) for y, new, end in steps)]
            texts = [problem.prompt_ids + y + chat.closing_ids for y, _ in every]
            scores = _scores(reward, texts)
            order = sorted(range(len(every)), key=lambda i: -scores[i])
            beams = [every[i] for i in order[: method.beams]]
    return tokens, time.perf_counter() - start


def plain_loop(
    models: SmolLM2Models, case: SmolLM2Case, problems: Sequence[Problem]
) -> TokensAndSeconds:
    """Run the plain loop of `jobs/benchmarks/search_loop.py`."""
    chat = load_chat(models.policy)
    loop = Loop(
        _plain_policy(models), _plain_reward(models), chat.end_ids, chat.closing_ids,
        finished_closing=chat.closing_ids,
    )  # fmt: skip
    start = time.perf_counter()
    for problem in problems:
        loop.answer(problem, case.method)
    return loop.chosen_tokens, time.perf_counter() - start


def _samples(models: SmolLM2Models, case: SmolLM2Case, problem: Problem) -> list[Ids]:
    model, end = _plain_policy(models), load_chat(models.policy).end_ids[0]
    ids = torch.tensor([problem.prompt_ids])
    outputs = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, top_p=1.0,
        num_return_sequences=case.method.shared_samples, max_new_tokens=case.new_tokens,
        pad_token_id=end,
    )  # fmt: skip
    return [_until(row.tolist(), end) for row in outputs[:, ids.shape[1] :]]


def _steps(
    llm: Any, problem: Problem, beams: Sequence[tuple[Ids, bool]], method: Any, limit: int
) -> tuple[list[tuple[Ids, bool]], list[tuple[Ids, Ids, bool]]]:
    """Return the finished beams, and the steps of the others with their prefixes."""
    from vllm import SamplingParams

    finished = [(y, ended) for y, ended in beams if ended or len(y) >= limit]
    growing = [y for y, ended in beams if not ended and len(y) < limit]
    parameters = [
        SamplingParams(
            n=method.candidates, temperature=1.0, max_tokens=limit - len(y),
            stop=[method.delimiter], include_stop_str_in_output=True,
        )
        for y in growing
    ]  # fmt: skip
    prefixes = _prompts([problem.prompt_ids + y for y in growing])
    outputs = llm.generate(prefixes, parameters, use_tqdm=False)
    steps = []
    for y, output in zip(growing, outputs, strict=True):
        for one in output.outputs:
            ended = one.finish_reason == "stop" and one.stop_reason != method.delimiter
            new = tuple(one.token_ids)
            steps.append((y, new[:-1] if ended else new, ended))
    return finished, steps


@torch.inference_mode()
def _scores(model: Any, texts: Sequence[Ids]) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(texts), TEXTS_PER_FORWARD):
        some = texts[start : start + TEXTS_PER_FORWARD]
        width = max(map(len, some))
        ids = torch.tensor([[*text, *[model.config.pad_token_id] * (width - len(text))]
                            for text in some])  # fmt: skip
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in some])
        hidden = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(some)), mask.sum(1) - 1]
        scores += model.score(last).squeeze(-1).tolist()
    return scores


def _prompts(texts: Sequence[Ids]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(text)} for text in texts]


def _until(tokens: list[int], end: int) -> Ids:
    """Return the tokens up to and including the end token."""
    return tuple(tokens[: tokens.index(end) + 1] if end in tokens else tokens)


@lru_cache(maxsize=1)
def _plain_policy(models: SmolLM2Models) -> Any:
    return AutoModelForCausalLM.from_pretrained(models.policy, dtype=torch.float32).eval()


@lru_cache(maxsize=1)
def _plain_reward(models: SmolLM2Models) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(models.reward, dtype=torch.float32)
    return model.eval()


@lru_cache(maxsize=1)
def _vllm(models: SmolLM2Models) -> Any:
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(torch.get_num_threads()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    return language_model(
        models.policy, "cpu", None, dtype="float32", enable_prefix_caching=True,
        max_num_seqs=512, generation_config="vllm", enforce_eager=True,
    )  # fmt: skip
