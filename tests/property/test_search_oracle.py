"""Every method's text on the Hugging Face engines equals the straightforward loop's, in float64."""

import asyncio
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_loop import Loop
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from orchestrator.engines.checkpoints import save_checkpoint
from orchestrator.engines.policy import HuggingFacePolicy
from orchestrator.engines.tokenizers import SPECIAL, word_tokenizer
from orchestrator.records import Response
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.args import ArgsParameters
from orchestrator.search.beam import BeamParameters
from orchestrator.search.best_of_n import BestOfNParameters
from orchestrator.search.cards import CardsParameters
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    TopRequest,
    TopTokens,
)
from orchestrator.search.lockstep import run_waves
from orchestrator.search.problem import Problem
from orchestrator.search.registry import METHODS

WORDS = 24
MODELS = 3  # pairs of a policy and a reward model


@cache
def engines(number: int, closed: bool) -> tuple[HuggingFacePolicy, SequenceScorer]:
    """Random models in float64, with attention of groups of heads."""
    tokenizer = word_tokenizer([f"w{i}" for i in range(WORDS - len(SPECIAL))])
    folder = Path(mkdtemp())
    for name, kind in (("p", LlamaForCausalLM), ("r", LlamaForSequenceClassification)):
        torch.manual_seed(2 * number + (name == "r"))
        config = LlamaConfig(
            vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, num_labels=1, initializer_range=0.6,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        save_checkpoint(kind(config), tokenizer, folder / name)
    policy = HuggingFacePolicy(str(folder / "p"), memory_mib=number % 2)
    position = "closed" if closed else "open"
    reward = SequenceScorer(str(folder / "r"), position, memory_mib=number % 2)
    for model in (policy.model, reward.model):
        model.double()
    return policy, reward


class Backend:
    """Both engines in this process."""

    def __init__(self, policy: HuggingFacePolicy, reward: SequenceScorer) -> None:
        self._policy, self._reward = policy, reward

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self._policy.sample(requests)

    async def top(self, requests: list[TopRequest]) -> list[TopTokens]:
        return self._policy.top(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        return self._reward.score(requests)


prompt = st.lists(st.integers(len(SPECIAL), WORDS - 1), min_size=1, max_size=8).map(tuple)
method = st.one_of(
    st.builds(BestOfNParameters, st.integers(1, 6)).map(lambda own: ("bon", own)),
    st.builds(ArgsParameters, st.floats(-3, 3), st.integers(1, WORDS)).map(
        lambda own: ("args", own)
    ),
    st.builds(BeamParameters, st.integers(1, 4), st.integers(1, 4), st.just(1)).map(
        lambda own: ("tbs", own)
    ),
    st.builds(BeamParameters, st.integers(1, 4), st.integers(1, 4), st.integers(2, 6)).map(
        lambda own: ("cbs", own)
    ),
    st.builds(
        CardsParameters, st.floats(-1, 2), st.floats(0, 2), st.floats(0, 1), st.floats(1, 4),
        st.integers(1, 6), st.integers(1, 5),
    ).map(lambda own: ("cards", own)),
)  # fmt: skip


def by_loop(loop: Loop, name: str, own: object, problem: Problem) -> Ids:
    """The oracle's answer."""
    if isinstance(own, BestOfNParameters):
        return loop.best_of_n(problem, own.n)
    if isinstance(own, ArgsParameters):
        return loop.args(problem, own.weight, own.k)
    if isinstance(own, BeamParameters):
        return loop.beams(problem, own.beams, own.candidates, own.chunk, name)
    assert isinstance(own, CardsParameters)
    return loop.cards(problem, own)


@settings(max_examples=250, deadline=None)
@given(
    st.integers(0, MODELS - 1), st.booleans(), method,
    st.lists(prompt, min_size=1, max_size=4), st.integers(0, 2**32), st.integers(1, 10),
    st.integers(1, 4),
)  # fmt: skip
def test_every_methods_text_is_the_loops(
    number: int,
    closed: bool,
    chosen: tuple[str, object],
    prompts: list[Ids],
    seed: int,
    limit: int,
    places: int,
) -> None:
    policy, reward = engines(number, closed)
    name, own = chosen
    problems = [Problem(f"p{i}", ids, seed, limit) for i, ids in enumerate(prompts)]
    backend = Backend(policy, reward)
    responses: list[Response] = asyncio.run(
        run_waves(problems, METHODS[name].bind(own), backend, backend, wave_size=places)
    )
    closing = reward.chat.closing_ids if closed else ()
    loop = Loop(policy.model, reward.model, policy.chat.end_ids, closing)
    expected = [by_loop(loop, name, own, problem) for problem in problems]
    assert [response.token_ids for response in responses] == expected
