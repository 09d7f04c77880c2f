"""Every scorer kind of the registry: one text has one score, whichever path computes it.

The oracle (`reward_oracles.py`) calls transformers by hand, text by text.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from support.reward_kinds import EXAMPLES, QUESTION, STEPS, Example, plugin_installed, spoilt
from support.reward_oracles import BY_HAND, USER

from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.decoding.bisect import answer_bisecting
from orchestrator.scorers.checkpoint_checks import check_scorer
from orchestrator.scorers.kind import SCORER_KINDS, kinds_in_order
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.scorer import RewardIsNotFinite, Scorer
from orchestrator.search.engines import Ids, ScoreRequest
from orchestrator.search.problem import PromptFailed

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=list(EXAMPLES))
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    with plugin_installed() if EXAMPLES[request.param].by_plugin else nullcontext():
        yield str(request.param)


@pytest.fixture(scope="module")
def example(name: str) -> Example:
    return EXAMPLES[name]


@pytest.fixture(scope="module")
def checkpoint(name: str, example: Example, tmp_path_factory: pytest.TempPathFactory) -> str:
    return example.make(tmp_path_factory.mktemp(name))


def asked(chat: Chat) -> tuple[Ids, Ids]:
    """The prompt and the response in the model's tokens."""
    text = chat.conversation(USER, "".join(STEPS))
    return text.prompt_ids, text.response_ids


def cuts_of(chat: Chat) -> list[int]:
    """Inside the first step, at its end, just behind it, in the second, at the very end."""
    first = len(chat.response_ids(STEPS[0]))
    return [3, first, first + 1, first + 3, len(asked(chat)[1])]


@torch.no_grad()
def expected(name: str, checkpoint: str, prefixes: list[Ids], response: Ids) -> list[float]:
    """Scores by hand; of a kind that adds one for the end, only for the whole response."""
    rewards = [BY_HAND[name](checkpoint, prefix) for prefix in prefixes]
    last = [-1 if prefix == response or not EXAMPLES[name].adds_end else 0 for prefix in prefixes]
    return [values[index] for values, index in zip(rewards, last, strict=True)]


def test_every_kind_has_an_example_and_consistent_traits() -> None:
    with plugin_installed():
        assert {example.kind for example in EXAMPLES.values()} == set(SCORER_KINDS)
        for name, kind in kinds_in_order().items():
            assert kind.name == name and kind.summary
            assert set(kind.recognized_head_types) <= set(kind.head_types)
            assert "transformers" in kind.engines and "float32" in kind.dtypes
            assert not kind.needs_base or "base" in kind.uses
            assert not kind.branch_positions or kind.position_matters or kind.aggregates_steps


def test_a_texts_score_is_the_same_number_whichever_path_computes_it(
    name: str, example: Example, checkpoint: str
) -> None:
    scorer = load_scorer(example.spec(checkpoint))
    prompt, y = asked(scorer.chat)
    cuts = cuts_of(scorer.chat)
    wanted = expected(name, checkpoint, [y[:t] for t in cuts], y)
    assert torch.tensor(wanted).std() > 0.01, "scores that hardly differ would show nothing"
    assert scorer.prefix_scores([prompt], [y], [cuts])[0] == pytest.approx(wanted, abs=TOLERANCE)
    for split in (0, 2, cuts[1]):
        later = [t for t in cuts if t >= split]
        finished = tuple(example.adds_end and t == len(y) for t in later)
        request = ScoreRequest(prompt, y[:split], tuple(y[split:t] for t in later), finished)
        (scored,) = scorer.score([request])
        assert list(scored.scores) == pytest.approx(wanted[-len(later) :], abs=TOLERANCE)
        # Later splits may go on from what was read for the first.
        assert scored.tokens_computed >= (len(prompt) + len(y) if split == 0 else 1)


def test_a_text_of_the_policys_decides_where_tokenizers_differ(
    name: str, example: Example, checkpoint: str, byte_reward: str
) -> None:
    policy = load_chat(byte_reward)
    scorer = load_scorer(example.spec(checkpoint), policy_chat=policy)
    assert not scorer.shares_tokenizer
    prompt, y = scorer.chat.reward_prompt_ids(USER), policy.response_ids("".join(STEPS))
    prefixes = [policy.response_ids("first add 2 and"), y]
    assert prefixes[0] == y[: len(prefixes[0])]
    texts = [scorer.chat.conversation(USER, policy.text(prefix)) for prefix in prefixes]
    own = [text.response_ids for text in texts]
    assert own[1] != y
    extensions = tuple(prefix[4:] for prefix in prefixes)
    (scored,) = scorer.score([ScoreRequest(prompt, y[:4], extensions, (example.adds_end,) * 2)])
    prompt = texts[0].prompt_ids
    alone = [scorer.prefix_scores([prompt], [ids], [[len(ids)]])[0][0] for ids in own]
    assert list(scored.scores) == pytest.approx(alone, abs=TOLERANCE)
    most = sum(scorer.tokens_of_prefixes(prompt, ids, [len(ids)]) for ids in own)
    assert len(prompt) + max(map(len, own)) <= scored.tokens_computed <= most
    if example.kind != "step_tag":  # whose oracle knows the steps' own tokens only
        by_hand = [expected(name, checkpoint, [ids], ids)[0] for ids in own]
        assert alone == pytest.approx(by_hand, abs=TOLERANCE)


def test_rows_do_not_change_each_others_scores(
    example: Example, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load_scorer(example.spec(checkpoint))
    _, y = asked(scorer.chat)
    questions = [[{"role": "user", "content": x}] for x in (QUESTION, "so")]
    prompts = [scorer.chat.conversation(question, "first").prompt_ids for question in questions]
    args = ([prompts[0], prompts[1], prompts[0]], [y, y[:4], y[5:]], [[2, 5, 10**6], [4], [1, 1]])
    together = scorer.prefix_scores(*args)
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 1)
    for found, alone in zip(scorer.prefix_scores(*args), together, strict=True):
        assert found == pytest.approx(alone, abs=TOLERANCE)


def test_positions_are_scored_one_after_the_other(
    name: str, example: Example, checkpoint: str
) -> None:
    closed = load_scorer(example.spec(checkpoint))
    open_ = load_scorer(example.spec(checkpoint), "open")
    prompt, y = asked(closed.chat)
    args = ([prompt], [y], [[2, 7, len(y)]])
    ends, contents = closed.prefix_scores(*args)[0], open_.prefix_scores(*args)[0]
    both = closed.prefix_scores(*args, ["open", "closed"])[0]
    assert both == pytest.approx([*contents, *ends], abs=TOLERANCE)
    # UltraRM's format writes nothing after a response.
    same = not SCORER_KINDS[example.kind].position_matters or name == "ultra_rm"
    assert (ends == pytest.approx(contents, abs=TOLERANCE)) is same


def test_a_weight_that_is_nan_stops_the_scoring(example: Example, tmp_path: Path) -> None:
    checkpoint = example.make(tmp_path)
    spoilt(tmp_path)
    scorer: Scorer = load_scorer(example.spec(checkpoint))
    prompt, y = asked(scorer.chat)
    with pytest.raises(RewardIsNotFinite, match=r"rewards of 2 of 2 rows .*: rows \[0, 1\]"):
        scorer.prefix_scores([prompt] * 2, [y] * 2, [[len(y)]] * 2)
    (found,) = answer_bisecting(scorer.score, [ScoreRequest(prompt, y, ((),))], scorer.clear_cache)
    assert isinstance(found, PromptFailed) or math.isnan(found.scores[0])


def test_a_damaged_checkpoint_is_one_clear_error(example: Example, tmp_path: Path) -> None:
    checkpoint = example.make(tmp_path)
    assert check_scorer(example.spec(checkpoint)).name == example.kind
    (weights, *_) = sorted(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=str(tmp_path)):
        check_scorer(example.spec(checkpoint))
