"""vLLM's policy and reward engines against those of transformers, on real engines of tiny models.

An engine takes 10 to 20 s to start: all tests share two, and change what is asked of them.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import engines
from scipy.stats import chisquare

from orchestrator import THREADS
from orchestrator.checkpoints.checkpoint import load_policy, save_checkpoint
from orchestrator.conversations.chat import load_chat
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.engines.huggingface.draws import distribution
from orchestrator.engines.huggingface.policy import HuggingFacePolicy, PolicyLogitsAreNaN
from orchestrator.engines.vllm.policy import VllmPolicy
from orchestrator.randomness import stream_key
from orchestrator.records import Response
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.token_converter import TokenConverter
from orchestrator.scorers.vllm_sequence import VllmSequenceScorer
from orchestrator.search.batch_backend import BatchBackend
from orchestrator.search.engines import (
    Ids,
    Sampled,
    SampleRequest,
    Scored,
    ScoreRequest,
    SequenceDoesNotFit,
    TopRequest,
    TopTokens,
)
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.problem import Problem
from orchestrator.search.runner import run_searches
from orchestrator.tasks.helpdesk import agents
from orchestrator.tasks.helpdesk.words import vocabulary

TEMPERATURE, TOP_P = 0.8, 0.95
CLOSE = 1e-4  # of scores
LEAST_P = 1e-3  # of a chi-square test over fixed keys
BLOCK = 32
CONTEXT = 256


@pytest.fixture(scope="module")
def policy(vllm: None, wide_policy: str) -> Iterator[VllmPolicy]:
    engine = VllmPolicy(wide_policy, TEMPERATURE, TOP_P)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def other(wide_policy: str) -> HuggingFacePolicy:
    return HuggingFacePolicy(wide_policy, TEMPERATURE, TOP_P)


@pytest.fixture(scope="module")
def scorer(vllm: None, wide_reward: str) -> Iterator[VllmSequenceScorer]:
    found = load_scorer(ScorerSpec(wide_reward, engine="vllm"))
    assert isinstance(found, VllmSequenceScorer)
    yield found
    found.close()


def prompts(policy: VllmPolicy | HuggingFacePolicy, count: int) -> list[Ids]:
    return [policy.chat.prompt_ids(p.messages) for p in agents.prompts(count, seed=5)]


def keys(count: int, *parts: str | int) -> tuple[int, ...]:
    return tuple(stream_key(*parts, i) for i in range(count))


def texts(found: list[Sampled]) -> list[tuple[Ids, str]]:
    return [(c.token_ids, c.stop) for one in found for c in one.continuations]


def test_greedy_text_is_that_of_transformers(policy: VllmPolicy, other: HuggingFacePolicy) -> None:
    asked = [
        SampleRequest(x, x[:n], (0,), 24, greedy=True) for n, x in enumerate(prompts(policy, 8))
    ]
    found = policy.sample(asked)
    assert texts(found) == texts(other.sample(asked))
    assert policy.sample([]) == []


def test_keyed_samples_are_those_of_transformers_in_any_batch(
    policy: VllmPolicy, other: HuggingFacePolicy
) -> None:
    asked = [SampleRequest(x, (), keys(8, "draw", n), 24) for n, x in enumerate(prompts(policy, 6))]
    found = policy.sample(asked)
    assert len(set(texts(found))) > 40
    theirs = other.sample(asked)
    assert texts(found) == texts(theirs)
    near = [[c.margin for one in both for c in one.continuations] for both in (found, theirs)]
    assert near[0] == pytest.approx(near[1], abs=1e-5) and max(near[0]) < 1
    assert {stop for _, stop in texts(found)} == {"end", "length"}
    greedy = [replace(asked[0], greedy=True), *asked[::-1]]
    assert texts(policy.sample(greedy))[8:] == [
        c for own in asked[::-1] for c in texts([found[asked.index(own)]])
    ]
    one_by_one = [replace(own, keys=(key,)) for own in asked for key in own.keys]
    assert texts([policy.sample([own])[0] for own in one_by_one[:3]]) == texts(found)[:3]


def test_a_prefix_goes_on_from_where_it_is(policy: VllmPolicy, other: HuggingFacePolicy) -> None:
    (x,) = prompts(policy, 1)
    asked = [SampleRequest(x, (7, 8, 9), keys(4, "prefix"), 5)]
    assert texts(policy.sample(asked)) == texts(other.sample(asked))


def test_end_tokens_are_left_out_and_may_count_as_others(
    policy: VllmPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [SampleRequest(x, (), keys(8, "end", n), 32) for n, x in enumerate(prompts(policy, 4))]
    found = policy.sample(asked)
    ended = [c for one in found for c in one.continuations if c.stop == "end"]
    assert ended and not any(set(c.token_ids) & {*policy.chat.end_ids} for c in ended)
    monkeypatch.setattr(policy, "_end_ids", ())
    whole = policy.sample(asked)
    assert {(len(ids), stop) for ids, stop in texts(whole)} == {(32, "length")}
    for one, (ids, _) in zip(
        (c for o in found for c in o.continuations), texts(whole), strict=True
    ):
        assert ids[: len(one.token_ids)] == one.token_ids
        if one.stop == "end":
            assert ids[len(one.token_ids)] in policy.chat.end_ids


def test_a_stop_ends_behind_the_token_that_completes_it(
    policy: VllmPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [SampleRequest(x, (), keys(8, "stop", n), 32) for n, x in enumerate(prompts(policy, 4))]
    free = [c for one in policy.sample(asked) for c in one.continuations]
    words = Counter(i for c in free for i in c.token_ids)
    pair = next(c.token_ids[2:4] for c in free if len(c.token_ids) > 8)
    common = policy.chat.text(words.most_common(1)[0][:1])
    # A text that vLLM sees in a continuation's first word, with the space before it.
    lead = f" {policy.chat.text(free[0].token_ids[:1])}"
    stops = (common, policy.chat.text(pair), lead)
    rounds: list[int] = []
    submit = policy._submit

    def counted(rows: Any) -> Any:
        rounds.append(len(rows))
        return submit(rows)

    monkeypatch.setattr(policy, "_submit", counted)
    found = policy.sample([replace(own, stops=stops) for own in asked])
    assert len(rounds) > 1  # where vLLM saw a stop that is none
    seen = set()
    for whole, part in zip(free, (c for one in found for c in one.continuations), strict=True):
        place = next(
            (
                n
                for n in range(1, len(whole.token_ids) + 1)
                if any(stop in policy.chat.text(whole.token_ids[:n]) for stop in stops)
            ),
            None,
        )
        assert part.token_ids == whole.token_ids[:place]
        assert part.stop == (whole.stop if place is None else "stop")
        seen.add(part.stop)
    assert "stop" in seen
    never = policy.sample([replace(own, stops=("no such text",)) for own in asked])
    assert texts(never) == [(c.token_ids, c.stop) for c in free]


def test_the_first_token_follows_the_distribution(
    policy: VllmPolicy, other: HuggingFacePolicy
) -> None:
    (x,) = prompts(policy, 1)
    with torch.no_grad():
        logits = other.model(torch.tensor([x])).logits[:, -1]
    expected = distribution(logits.float(), TEMPERATURE, TOP_P)[0][0].double().numpy()
    (found,) = policy.sample([SampleRequest(x, (), keys(2000, "chi"), 1)])
    ends = {c.stop for c in found.continuations}
    assert ends <= {"end", "length"}
    drawn = np.bincount(
        [c.token_ids[0] if c.token_ids else policy.chat.end_ids[0] for c in found.continuations],
        minlength=len(expected),
    )
    assert drawn[expected == 0].sum() == 0
    often = expected * drawn.sum() >= 5
    assert often.sum() > 10
    wanted = expected[often] / expected[often].sum() * drawn[often].sum()
    assert chisquare(drawn[often], wanted).pvalue > LEAST_P


def test_likeliest_tokens_are_those_of_transformers(
    policy: VllmPolicy, other: HuggingFacePolicy
) -> None:
    size = len(policy.chat.tokenizer)
    asked = [TopRequest(x, x[:n], 30 if n else size) for n, x in enumerate(prompts(policy, 4))]
    asked.append(replace(asked[1], count=1))
    for own, their in zip(policy.top_next_tokens(asked), other.top_next_tokens(asked), strict=True):
        assert own.token_ids == their.token_ids
        differences = np.subtract(own.logits, their.logits)
        assert differences == pytest.approx(np.full(len(differences), differences[0]), abs=CLOSE)
    assert policy.top_next_tokens(asked)[-1].tokens_computed == 0
    assert None in policy.top_next_tokens(asked)[0].token_ids
    assert policy.top_next_tokens([]) == []


def test_tokens_are_counted(policy: VllmPolicy) -> None:
    policy.clear_cache()
    (x,) = prompts(policy, 1)
    x = (x * 8)[:70]
    asked = SampleRequest(x, (), keys(3, "count"), 8)
    (found,) = policy.sample([asked])
    ended = sum(c.stop == "end" for c in found.continuations)
    drawn = sum(len(c.token_ids) for c in found.continuations)
    assert found.tokens_sampled == drawn + ended
    # The first computes the prompt, the others its last 6 tokens: blocks are of 32.
    assert found.tokens_computed == 70 + 2 * (70 - 2 * BLOCK) + found.tokens_sampled - 3
    (again,) = policy.sample([asked])
    assert again.tokens_computed == 3 * (70 - 2 * BLOCK) + again.tokens_sampled - 3
    assert texts([again]) == texts([found])
    policy.clear_cache()
    assert policy.top_next_tokens([TopRequest(x, (), 2)])[0].tokens_computed == 70


def test_what_cannot_be_is_refused_by_its_row(policy: VllmPolicy) -> None:
    (x,) = prompts(policy, 1)
    fits = SampleRequest(x, (5,) * (CONTEXT - len(x) - 8), (1,), 8)
    assert policy.sample([fits])[0].tokens_sampled > 0
    for bad in (replace(fits, max_new_tokens=9), replace(fits, prompt_ids=(), prefix_ids=())):
        with pytest.raises(
            SequenceDoesNotFit, match=r"1 of 2 rows .*: rows \[1\]; .*valid: 1 to 256 \(the model"
        ) as error:
            policy.sample([fits, bad])
        assert error.value.rows == (1,)
    with pytest.raises(ValueError, match=r"returns no entropies.*engine: transformers"):
        policy.sample([replace(fits, entropy_stop=1.0)])


def requests(chat_of: SequenceScorer | VllmSequenceScorer, count: int) -> list[ScoreRequest]:
    rows = [agents.demonstration(prompt, 3) for prompt in agents.prompts(count, seed=3)]
    found = []
    for row in rows:
        x = chat_of.chat.prompt_ids(row.prompt.messages)
        y = chat_of.chat.response_ids(row.response)
        found.append(ScoreRequest(x, y[:5], ((), y[5:8], y[5:], y[5:8])))
    return found


@pytest.mark.parametrize("position", ["closed", "open"])
def test_scores_are_those_of_transformers(
    position: str, scorer: VllmSequenceScorer, wide_reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "position", position)
    scorer.clear_cache()
    other = SequenceScorer(wide_reward, position)  # type: ignore[arg-type]
    asked = requests(other, 6)
    found, expected = scorer.score(asked), other.score(asked)
    assert np.std([one.scores for one in expected]) > 0.05
    closing = len(scorer.closing(scorer.position))
    for one, their, request in zip(found, expected, asked, strict=True):
        assert one.scores == pytest.approx(their.scores, abs=CLOSE)
        sizes = [
            len(request.prompt_ids) + 5 + len(extension) + closing
            for extension in request.extensions
        ]
        assert one.tokens_computed + one.tokens_reused == sum(sizes)
        assert max(sizes) <= one.tokens_computed <= sum(sizes[:3])
    # Whole blocks are reused; a text's last token is computed in any case.
    for one, before, request in zip(scorer.score(asked), found, asked, strict=True):
        assert one.scores == pytest.approx(before.scores, abs=CLOSE)
        sizes = [len(request.prompt_ids) + 5 + len(e) + closing for e in request.extensions[:3]]
        assert one.tokens_computed == sum((n - 1) % BLOCK + 1 for n in sizes)


def test_prefix_scores_are_those_of_the_packed_pass(
    scorer: VllmSequenceScorer, wide_reward: str
) -> None:
    other = SequenceScorer(wide_reward)
    asked = requests(other, 3)
    xs = [one.prompt_ids for one in asked]
    ys = [one.prefix_ids + one.extensions[2] for one in asked]
    cuts = [[1, 4, 10**6], [2], []]
    for positions in ((), ("open",), ("closed", "open")):
        found = scorer.prefix_scores(xs, ys, cuts, positions)
        expected = other.prefix_scores(xs, ys, cuts, positions)
        for own, their in zip(found, expected, strict=True):
            assert own == pytest.approx(their, abs=CLOSE)
    assert scorer.prefix_scores([], [], []) == []
    with pytest.raises(
        SequenceDoesNotFit,
        match=r"1 of 2 rows .*: rows \[1\]; the longest has 263 tokens; valid: 1 to 256",
    ):
        scorer.prefix_scores([xs[0], (3,) * 8], [ys[0], (4,) * 254], [[1], [1, 254]])


def test_a_policy_of_other_tokens_is_scored_by_its_text(
    scorer: VllmSequenceScorer, wide_reward: str, byte_reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    byte = load_chat(byte_reward)
    monkeypatch.setattr(scorer, "token_converter", TokenConverter(byte, scorer.chat))
    other = SequenceScorer(wide_reward, policy_chat=byte)
    x = requests(other, 1)[0].prompt_ids
    y = byte.response_ids("thank you . please check the screen .")
    asked = [ScoreRequest(x, y[:3], tuple(y[3:n] for n in range(3, len(y) + 1)))]
    assert scorer.score(asked)[0].scores == pytest.approx(other.score(asked)[0].scores, abs=CLOSE)


class Backend:
    """Both engines as lockstep asks them."""

    def __init__(
        self, policy: VllmPolicy | HuggingFacePolicy, scorer: SequenceScorer | VllmSequenceScorer
    ) -> None:
        self._policy, self._scorer = policy, scorer

    async def sample(self, requests: list[SampleRequest]) -> list[Sampled]:
        return self._policy.sample(requests)

    async def top_next_tokens(self, requests: list[TopRequest]) -> list[TopTokens]:
        return self._policy.top_next_tokens(requests)

    async def score(self, requests: list[ScoreRequest]) -> list[Scored]:
        return self._scorer.score(requests)


def test_a_whole_search_gives_the_responses_of_transformers(
    policy: VllmPolicy, other: HuggingFacePolicy, scorer: VllmSequenceScorer, wide_reward: str
) -> None:
    problems = [Problem(f"p{n}", x, 0, 24) for n, x in enumerate(prompts(policy, 5))]

    def found(backend: Backend) -> list[Response]:
        start = ChunkBeamSearch(beams=2, candidates=3, chunk=6).run
        return asyncio.run(
            run_searches(
                problems, start, BatchBackend(backend, backend), max_concurrent=2, batchers=2
            )
        )

    ours = found(Backend(policy, scorer))
    theirs = found(Backend(other, SequenceScorer(wide_reward)))
    assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
    for one in ours:
        assert one.cost.policy_tokens_sampled > 0 and one.cost.reward_tokens_computed > 0


@pytest.mark.slow
def test_a_policy_whose_weights_are_nan_raises(vllm: None, wide_policy: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = load_policy(wide_policy)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    save_checkpoint(model, word_tokenizer(vocabulary()), tmp_path / "nan")
    broken = VllmPolicy(str(tmp_path / "nan"))
    for greedy in (False, True):
        with pytest.raises(PolicyLogitsAreNaN, match="logits are NaN"):
            broken.sample([SampleRequest((3, 4), (), (1,), 4, greedy=greedy)])
    broken.close()


def test_its_threads_wait_as_ours_do(policy: VllmPolicy) -> None:
    """From its start: vLLM loads torch before anything that runs there could say so."""
    policy.top_next_tokens([TopRequest(prompts(policy, 1)[0], (), 1)])
    (engine,) = [e for e in engines() if "spawn_main" in " ".join(e.cmdline())][:1]
    given = engine.environ()
    assert all(given.get(name) == os.environ.get(name) for name in THREADS)


def test_a_closed_engine_leaves_no_process(policy: VllmPolicy, scorer: VllmSequenceScorer) -> None:
    running = engines()
    assert len(running) >= 2
    policy.close()
    scorer.close()
    assert len(engines()) == len(running) - 2
    with pytest.raises(RuntimeError, match="the vLLM engine is closed"):
        policy.sample([SampleRequest((3,), (), (1,), 1)])
