"""Every kind of reward model: one text has one score, whichever path computes it.

The oracle (`reward_oracles.py`) calls transformers by hand, text by text.
"""

import math
from pathlib import Path

import pytest
import torch
from support.reward_kinds import MAKERS, QUESTION, STEPS, spoilt
from support.reward_oracles import BY_HAND, USER

from orchestrator.choices import ScorerKind
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.decoding.bisect import answer_bisecting
from orchestrator.scorers.registry import load_scorer
from orchestrator.scorers.scorer import RewardIsNotFinite, Scorer, ScorerSpec
from orchestrator.search.engines import Ids, ScoreRequest
from orchestrator.search.problem import PromptFailed

TOLERANCE = 1e-4


STEP_TAGS = ("process_head", "token_classes", "shepherd")
# Which only a person can tell.
KINDS: dict[str, ScorerKind] = {"shepherd": "step_tag", "value_head": "sequence"}
TAGS = {"token_classes": "\n\n"}  # so that the same steps serve all


@pytest.fixture(scope="module", params=list(MAKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(kind: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return MAKERS[kind](tmp_path_factory.mktemp(kind))


def spec(kind: str, checkpoint: str) -> ScorerSpec:
    return ScorerSpec(checkpoint, KINDS.get(kind), step_tag=TAGS.get(kind))


def asked(chat: Chat) -> tuple[Ids, Ids]:
    """The prompt and the response in the model's tokens."""
    text = chat.conversation(USER, "".join(STEPS))
    return text.prompt_ids, text.response_ids


def cuts_of(chat: Chat) -> list[int]:
    """Inside the first step, at its end, just behind it, in the second, at the very end."""
    first = len(chat.response_ids(STEPS[0]))
    return [3, first, first + 1, first + 3, len(asked(chat)[1])]


@torch.no_grad()
def expected(kind: str, checkpoint: str, prefixes: list[Ids]) -> list[float]:
    return [BY_HAND[kind](checkpoint, prefix)[-1] for prefix in prefixes]


def test_a_texts_score_is_the_same_number_whichever_path_computes_it(
    kind: str, checkpoint: str
) -> None:
    scorer = load_scorer(spec(kind, checkpoint))
    prompt, y = asked(scorer.chat)
    cuts = cuts_of(scorer.chat)
    wanted = expected(kind, checkpoint, [y[:t] for t in cuts])
    assert torch.tensor(wanted).std() > 0.01, "scores that hardly differ would show nothing"
    assert scorer.prefix_scores([prompt], [y], [cuts])[0] == pytest.approx(wanted, abs=TOLERANCE)
    for split in (0, 2, cuts[1]):
        later = [t for t in cuts if t >= split]
        request = ScoreRequest(prompt, y[:split], tuple(y[split:t] for t in later))
        (scored,) = scorer.score([request])
        assert list(scored.scores) == pytest.approx(wanted[-len(later) :], abs=TOLERANCE)
        # Later splits may go on from what was read for the first.
        assert scored.tokens_computed >= (len(prompt) + len(y) if split == 0 else 1)


def test_a_text_of_the_policys_decides_where_tokenizers_differ(
    kind: str, checkpoint: str, byte_reward: str
) -> None:
    policy = load_chat(byte_reward)
    scorer = load_scorer(spec(kind, checkpoint), policy_chat=policy)
    assert not scorer.shares_tokenizer
    prompt, y = scorer.chat.reward_prompt_ids(USER), policy.response_ids("".join(STEPS))
    prefixes = [policy.response_ids("first add 2 and"), y]
    assert prefixes[0] == y[: len(prefixes[0])]
    texts = [scorer.chat.conversation(USER, policy.text(prefix)) for prefix in prefixes]
    own = [text.response_ids for text in texts]
    assert own[1] != y
    request = ScoreRequest(prompt, y[:4], tuple(prefix[4:] for prefix in prefixes))
    (scored,) = scorer.score([request])
    prompt = texts[0].prompt_ids
    alone = [scorer.prefix_scores([prompt], [ids], [[len(ids)]])[0][0] for ids in own]
    assert list(scored.scores) == pytest.approx(alone, abs=TOLERANCE)
    most = sum(scorer.tokens_of_prefixes(prompt, ids, [len(ids)]) for ids in own)
    assert len(prompt) + max(map(len, own)) <= scored.tokens_computed <= most
    if kind not in STEP_TAGS:  # whose oracle knows the steps' own tokens only
        assert alone == pytest.approx(expected(kind, checkpoint, own), abs=TOLERANCE)


def test_rows_do_not_change_each_others_scores(
    kind: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load_scorer(spec(kind, checkpoint))
    _, y = asked(scorer.chat)
    questions = [[{"role": "user", "content": x}] for x in (QUESTION, "so")]
    prompts = [scorer.chat.conversation(question, "first").prompt_ids for question in questions]
    args = ([prompts[0], prompts[1], prompts[0]], [y, y[:4], y[5:]], [[2, 5, 10**6], [4], [1, 1]])
    together = scorer.prefix_scores(*args)
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 1)
    for found, alone in zip(scorer.prefix_scores(*args), together, strict=True):
        assert found == pytest.approx(alone, abs=TOLERANCE)


def test_positions_are_scored_one_after_the_other(kind: str, checkpoint: str) -> None:
    closed = load_scorer(spec(kind, checkpoint))
    open_ = load_scorer(spec(kind, checkpoint), "open")
    prompt, y = asked(closed.chat)
    args = ([prompt], [y], [[2, 7, len(y)]])
    ends, contents = closed.prefix_scores(*args)[0], open_.prefix_scores(*args)[0]
    both = closed.prefix_scores(*args, ["open", "closed"])[0]
    assert both == pytest.approx([*contents, *ends], abs=TOLERANCE)
    same = kind in (*STEP_TAGS, "ultra_rm")
    assert (ends == pytest.approx(contents, abs=TOLERANCE)) is same


def test_a_weight_that_is_nan_stops_the_scoring(kind: str, tmp_path: Path) -> None:
    checkpoint = MAKERS[kind](tmp_path)
    spoilt(tmp_path)
    scorer: Scorer = load_scorer(spec(kind, checkpoint))
    prompt, y = asked(scorer.chat)
    with pytest.raises(RewardIsNotFinite, match=r"rows \[0, 1\] \(of 2\)"):
        scorer.prefix_scores([prompt] * 2, [y] * 2, [[len(y)]] * 2)
    (found,) = answer_bisecting(scorer.score, [ScoreRequest(prompt, y, ((),))], scorer.forget)
    assert isinstance(found, PromptFailed) or math.isnan(found.scores[0])
