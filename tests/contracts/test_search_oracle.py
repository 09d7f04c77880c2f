"""Every method's text on the Hugging Face engines equals the straightforward loop's, in float64."""

import asyncio
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.method_examples import any_method
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from jobs.benchmarks.search_loop import Loop
from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model, save_checkpoint
from orchestrator.choices import Position
from orchestrator.conversations.tokenizers import SPECIAL, byte_pair_tokenizer, word_tokenizer
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.records import Response
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches

SENTENCES = (".", "!", "no.")  # words that end a sentence
WORDS = 24
MODELS = 3  # pairs of a policy and a reward model


@cache
def checkpoints(number: int, own: bool) -> Path:
    """Random models, with attention of groups of heads.

    A reward model with its ``own`` tokenizer reads parts of words.
    """
    plain = WORDS - len(SPECIAL) - len(SENTENCES)
    words = [*(f"w{i}" for i in range(plain)), *SENTENCES]
    tokenizers = {"p": word_tokenizer(words), "r": word_tokenizer(words)}
    if own:
        tokenizers["r"] = byte_pair_tokenizer([" ".join(words)], 280)
    folder = Path(mkdtemp())
    for name, kind in (("p", LlamaForCausalLM), ("r", LlamaForSequenceClassification)):
        torch.manual_seed(2 * number + (name == "r"))
        tokenizer = tokenizers[name]
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, num_labels=1, initializer_range=0.6,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        save_checkpoint(kind(config), tokenizer, folder / name)
    return folder


@cache
def engines(
    number: int, closed: bool, own: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[HuggingFacePolicy, SequenceScorer]:
    """Those of random models, with room for keys and values, none, or that of a few rows."""
    folder = checkpoints(number, own)
    cache_mib = (0, 1, 0.1)[number]
    policy = HuggingFacePolicy(str(folder / "p"), cache_mib=cache_mib)
    position: Position = "closed" if closed else "open"
    reward = SequenceScorer(str(folder / "r"), position, policy.chat, cache_mib=cache_mib)
    for model in (policy.model, reward.model):
        model.to(dtype)
    assert reward.shares_tokenizer is not own
    return policy, reward


@cache
def plain_models(number: int, own: bool) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The same models as transformers has them, with none of the engines' attention."""
    folder = checkpoints(number, own)
    policy, reward = load_policy(str(folder / "p")), load_reward_model(str(folder / "r"))
    return policy.double().eval(), reward.double().eval()


class Backend:
    """Both engines in this process."""

    def __init__(self, policy: HuggingFacePolicy, reward: SequenceScorer) -> None:
        self._policy, self._reward = policy, reward

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self._policy.sample(requests)

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        return self._policy.top_next_tokens(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        if not self._reward.shares_tokenizer:
            prompts = [reward_prompt(self._policy, self._reward, r.prompt_ids) for r in requests]
            pairs = zip(requests, prompts, strict=True)
            requests = [replace(request, prompt_ids=prompt) for request, prompt in pairs]
        return self._reward.score(requests)


def reward_prompt(policy: HuggingFacePolicy, reward: SequenceScorer, prompt: Ids) -> Ids:
    """A prompt in the reward model's tokens, any text of which is one here."""
    if reward.shares_tokenizer:
        return prompt
    return reward.chat.response_ids(policy.chat.text(prompt))


def response_of(policy: HuggingFacePolicy, reward: SequenceScorer, response: Ids) -> Ids:
    """A response in the reward model's tokens: its text tokenized whole."""
    if reward.shares_tokenizer:
        return response
    return reward.chat.response_ids(policy.chat.text(response))


prompt = st.lists(st.integers(len(SPECIAL), WORDS - 1), min_size=1, max_size=8).map(tuple)


@dataclass(frozen=True)
class Case:
    """Models, a method and prompts, and how they are searched."""

    number: int
    closed: bool
    method: AnySearchMethod
    prompts: list[Ids]
    seed: int
    limit: int
    max_concurrent: int
    temperature: float
    top_p: float


CASES = st.builds(
    Case, st.integers(0, MODELS - 1), st.booleans(), any_method(),
    st.lists(prompt, min_size=1, max_size=4), st.integers(0, 2**32), st.integers(1, 10),
    st.integers(1, 4), st.sampled_from([1.0, 0.4, 2.5]), st.sampled_from([1.0, 0.95, 0.5]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_every_methods_text_is_the_loops(case: Case) -> None:
    check(case, own=False)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(CASES)
def test_so_it_is_in_many_more_cases(case: Case) -> None:
    check(case, own=False)


@settings(max_examples=30, deadline=None)
@given(CASES)
def test_so_it_is_where_the_reward_model_has_its_own_tokenizer(case: Case) -> None:
    check(case, own=True)


def check(case: Case, own: bool) -> None:
    """A method's responses are the loop's."""
    policy, reward = engines(case.number, case.closed, own)
    problems = [Problem(f"p{i}", ids, case.seed, case.limit) for i, ids in enumerate(case.prompts)]
    backend = BatchBackend(Backend(policy, reward), Backend(policy, reward))
    policy.temperature, policy.top_p = case.temperature, case.top_p
    try:
        responses: list[Response] = asyncio.run(
            run_searches(
                problems, case.method.run, backend, max_concurrent=case.max_concurrent, batchers=2
            )
        )
    finally:
        policy.temperature, policy.top_p = 1.0, 1.0
    loop = Loop(
        *plain_models(case.number, own), policy.chat.end_ids, reward.closing(reward.position),
        case.temperature, case.top_p, text=policy.chat.text,
        finished_closing=reward.chat.closing_ids,
        reward_ids=lambda prompt, response: (
            reward_prompt(policy, reward, prompt) + response_of(policy, reward, response)
        ),
    )  # fmt: skip
    expected = [loop.answer(problem, case.method) for problem in problems]
    assert [response.token_ids for response in responses] == expected
