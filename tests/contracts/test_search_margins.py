"""A run that rounds otherwise gives the same texts but at near decisions, and says how near."""

import asyncio
from collections.abc import Sequence

import pytest
import torch
from support.method_examples import examples
from test_search_oracle import Backend, engines

from orchestrator.conversations.tokenizers import SPECIAL
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.randomness import generator
from orchestrator.records import Response
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches

WORDS = 24
EXAMPLES = examples("w").values()
Models = tuple[HuggingFacePolicy, SequenceScorer]


def problems(count: int) -> list[Problem]:
    rng = generator(0, "margins")
    lengths = rng.integers(1, 9, count).tolist()
    prompts = [tuple(rng.integers(len(SPECIAL), WORDS, length).tolist()) for length in lengths]
    return [Problem(f"p{i}", prompt, 7, 8) for i, prompt in enumerate(prompts)]


def answers(
    models: Models, method: AnySearchMethod, asked: Sequence[Problem], places: int, waves: int = 1
) -> dict[str, Response]:
    backend = BatchBackend(Backend(*models), Backend(*models))
    found = run_searches(asked, method.run, backend, max_concurrent=places, batchers=waves)
    return {response.prompt_id: response for response in asyncio.run(found)}


def differing(models: Models, count: int) -> tuple[int, list[Response]]:
    """How many texts there are, and those that another mix of batches changed."""
    total, changed = 0, []
    for method in EXAMPLES:
        asked = problems(count)
        alone = answers(models, method, asked, places=1)
        for mixed in (
            answers(models, method, asked, places=4),
            answers(models, method, asked[::-1], places=3, waves=2),
        ):
            total += len(mixed)
            changed += [own for key, own in alone.items() if own.token_ids != mixed[key].token_ids]
    return total, changed


def test_in_float64_no_mix_of_batches_changes_a_text() -> None:
    assert differing(engines(0, True), 5)[1] == []


def test_in_float32_few_texts_change_and_each_at_a_near_decision() -> None:
    total, changed = differing(engines(1, True, dtype=torch.float32), 8)
    assert total > 200 and len(changed) <= 0.005 * total
    assert all(response.margin < 1e-4 for response in changed)


NOISE = 1e-4  # of the weights, in relation to each: far more than rounding, so that texts do change


def test_what_disturbs_the_numbers_changes_texts_at_near_decisions_only() -> None:
    exact, disturbed = engines(2, True), engines.__wrapped__(2, True)
    torch.manual_seed(0)
    with torch.no_grad():
        for model in (disturbed[0].model, disturbed[1].model):
            for weight in model.parameters():
                weight.mul_(1 + NOISE * torch.randn_like(weight))
    changed, far = [], 0
    for method in EXAMPLES:
        asked = problems(16)
        before, after = (answers(models, method, asked, 16) for models in (exact, disturbed))
        changed += [own for key, own in before.items() if own.token_ids != after[key].token_ids]
        far += sum(response.margin > 100 * NOISE for response in before.values())
    assert changed and far > 8
    assert all(response.margin < 100 * NOISE for response in changed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_same_of_many_more_texts(number: int) -> None:
    total, changed = differing(engines(number, False, dtype=torch.float32), 80)
    assert len(changed) <= 0.005 * total
    assert all(response.margin < 1e-4 for response in changed)
