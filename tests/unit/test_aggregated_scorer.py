"""Aggregates over steps of any scorer, by hand from the inner scorer's values; and the registry."""

import math
from pathlib import Path

import pytest
from support.reward_kinds import MAKERS, QUESTION, STEPS

from orchestrator.choices import Aggregation, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.scorers.aggregated import AggregatedScorer
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.log_ratio import LogRatioScorer
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids, ScoreRequest, SequenceDoesNotFit

TOLERANCE = 1e-4
TEXT = "hello . first seal the lid . then oil the"  # 10 tokens, steps end at 2 and 7
# Where the steps of a prefix of t tokens end; one that ends with a step has no other behind it.
ENDS = {10: [2, 7, 10], 7: [2, 7], 8: [2, 7, 8], 1: [1], 0: [0]}
HOWS: list[Aggregation] = ["last", "min", "mean", "sum", "product"]


def by_hand(values: list[float], how: Aggregation) -> float:
    return {
        "last": values[-1],
        "min": min(values),
        "mean": sum(values) / len(values),
        "sum": sum(values),
        "product": math.prod(1 / (1 + math.exp(-value)) for value in values),
    }[how]


def ids_of(scorer: SequenceScorer) -> tuple[Ids, Ids]:
    prompt = scorer.chat.prompt_ids([{"role": "user", "content": "order 3 ."}])
    return prompt, scorer.chat.response_ids(TEXT)


@pytest.mark.parametrize("how", HOWS)
def test_a_prefix_scores_as_its_values_at_step_ends_by_hand(
    word_reward: str, how: Aggregation
) -> None:
    inner = SequenceScorer(word_reward)
    scorer = AggregatedScorer(inner, how, ".")
    prompt, response = ids_of(inner)
    short = response[:3]
    positions: list[Position] = ["open", "closed"]
    expected = []
    for position in positions:
        for ends in ENDS.values():
            prefixes = [response[:end] for end in ends]
            # Each value from a call of its own.
            values = [
                inner.prefix_scores([prompt], [y], [[len(y)]], [position])[0][0] for y in prefixes
            ]
            expected.append(by_hand(values, how))
    rows = scorer.prefix_scores(
        [prompt] * 3, [response, short, response], [list(ENDS), [10**6], []], positions
    )
    assert rows[0] == pytest.approx(expected, abs=TOLERANCE)
    assert len(rows[1]) == 2 and rows[2] == []
    closed = scorer.prefix_scores([prompt], [response], [list(ENDS)])[0]
    assert closed == pytest.approx(expected[len(ENDS) :], abs=TOLERANCE)


@pytest.mark.parametrize("how", HOWS)
def test_an_extension_scores_as_the_whole_text(word_reward: str, how: Aggregation) -> None:
    inner = SequenceScorer(word_reward)
    scorer = AggregatedScorer(inner, how, ".")
    prompt, y = ids_of(inner)
    requests = [
        ScoreRequest(prompt, y[:split], (y[split:], (), y[split : split + 1], y, y[split:]))
        for split in (0, 1, 2, 3, 7, 8)
    ]
    for request, scored in zip(requests, scorer.score(requests), strict=True):
        whole = [request.prefix_ids + extension for extension in request.extensions]
        alone = [scorer.prefix_scores([prompt], [ids], [[len(ids)]])[0][0] for ids in whole]
        assert scored.scores == pytest.approx(alone, abs=TOLERANCE)


def test_the_prefix_is_computed_once_for_its_steps_and_once_for_all_extensions(
    word_reward: str,
) -> None:
    inner = SequenceScorer(word_reward)
    scorer = AggregatedScorer(inner, "min", ".")
    prompt, response = ids_of(inner)
    (scored,) = scorer.score([ScoreRequest(prompt, response[:7], ((), response[7:]))])
    expected = scorer.prefix_scores([prompt], [response], [[7, 10]])[0]
    assert scored.scores == pytest.approx(expected, abs=TOLERANCE)
    # A closing token at the one end inside the prefix; behind it, at its own end and after three.
    assert scored.tokens_computed == (len(prompt) + 7 + 1) + (len(prompt) + 7 + 1 + 3 + 1)
    (scored,) = scorer.score([ScoreRequest(prompt, (), (response[:2],))])
    assert scored.tokens_computed == len(prompt) + 2 + 1


def test_with_another_tokenizer_than_the_policys_the_text_decides(
    word_policy: str, byte_reward: str
) -> None:
    policy_chat, own = load_chat(word_policy), load_chat(byte_reward)
    inner = SequenceScorer(byte_reward, policy_chat=policy_chat)
    scorer = AggregatedScorer(inner, "min", ".")
    assert not scorer.shares_tokenizer
    prompt, ids = (
        own.prompt_ids([{"role": "user", "content": "hi"}]),
        policy_chat.response_ids(TEXT),
    )
    (scored,) = scorer.score([ScoreRequest(prompt, ids[:2], (ids[2:],))])
    texts = ["hello .", "hello . first seal the lid .", TEXT]
    values = [
        inner.prefix_scores([prompt], [own.response_ids(text)], [[10**6]])[0][0] for text in texts
    ]
    assert scored.scores == pytest.approx([min(values)], abs=TOLERANCE)
    assert scorer.context_length == inner.context_length
    scorer.context_length = len(prompt) + 4
    with pytest.raises(
        SequenceDoesNotFit, match=f"the reward model reads {scorer.context_length} at most"
    ):
        scorer.score([ScoreRequest(prompt, ids[:2], (ids[2:],))])


def test_a_value_that_is_nan_stops_the_scoring(broken_reward: str) -> None:
    scorer = AggregatedScorer(SequenceScorer(broken_reward), "mean", ".")
    prompt, response = (5, 6), (7, 8)
    with pytest.raises(RewardIsNotFinite):
        scorer.prefix_scores([prompt], [response], [[2]])


def test_the_registry_gives_each_spec_its_scorer(
    word_policy: str, word_reward: str, byte_reward: str
) -> None:
    plain = load_scorer(ScorerSpec(word_reward))
    assert isinstance(plain, SequenceScorer)
    prompt, response = ids_of(plain)
    spec = ScorerSpec(word_reward, aggregation="min", step_delimiter=".")
    (found,) = load_scorer(spec, "open").prefix_scores([prompt], [response], [[10]])
    wanted = min(plain.prefix_scores([prompt], [response], [ENDS[10]], ["open"])[0])
    assert found[0] == pytest.approx(wanted, abs=TOLERANCE)

    for kind in ("log_ratio", None):
        spec = ScorerSpec(
            word_policy, kind, aggregation="sum", step_delimiter=".", base=word_policy, beta=0.25
        )  # fmt: skip
        ratio = load_scorer(spec, "open", load_chat(word_policy))
        assert isinstance(ratio, LogRatioScorer)
        known = (ratio.beta, ratio.aggregation, ratio.step_delimiter, ratio.position)
        assert known == (0.25, "sum", ".", "open") and ratio.shares_tokenizer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "log_ratio"}, "kind 'log_ratio' needs a base"),
        ({"kind": "step_tag", "base": "weak"}, "base = 'weak': kind 'step_tag' has no base model"),
        ({}, r"or a kind \(step_tag, log_ratio"),
    ],
)
def test_a_log_ratio_has_a_base_and_nothing_else_has(
    word_policy: str, changes: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load_scorer(ScorerSpec(word_policy, **changes))  # type: ignore[arg-type]


def test_a_reward_model_is_no_side_of_a_log_ratio(word_policy: str, word_reward: str) -> None:
    with pytest.raises(ValueError, match="cannot be a scorer of kind 'log_ratio': it is a Llama"):
        load_scorer(ScorerSpec(word_reward, base=word_policy))
    with pytest.raises(
        ValueError, match="cannot be the base of a log ratio: it is a LlamaForSequence"
    ):
        load_scorer(ScorerSpec(word_policy, base=word_reward))


def test_an_encoder_reads_every_step_end_as_a_text_of_its_own(tmp_path: Path) -> None:
    checkpoint = MAKERS["deberta"](tmp_path / "encoder")
    inner = load_scorer(ScorerSpec(checkpoint))
    scorer = load_scorer(ScorerSpec(checkpoint, aggregation="mean", step_delimiter="."))
    chat = inner.chat
    prompt = chat.prompt_ids([{"role": "user", "content": QUESTION}])
    prefixes = [chat.response_ids(" ".join(STEPS[:n]).strip()) for n in (1, 2, 3)]
    (scored,) = scorer.score([ScoreRequest(prompt, (), (prefixes[2],))])
    alone = inner.score([ScoreRequest(prompt, (), tuple(prefixes))])[0]
    assert scored.scores[0] == pytest.approx(sum(alone.scores) / 3, abs=TOLERANCE)
    assert scored.tokens_computed == alone.tokens_computed
    assert alone.tokens_computed == sum(len(prompt) + len(y) + 1 for y in prefixes)


def test_a_delimiter_that_the_tokenizer_loses_is_refused(tmp_path: Path, word_policy: str) -> None:
    checkpoint = MAKERS["deberta"](tmp_path / "encoder")
    with pytest.raises(
        ValueError, match=r"step_delimiter = '\\n\\n': the reward model's .* loses this"
    ):
        load_scorer(ScorerSpec(checkpoint, aggregation="min"))
    with pytest.raises(
        ValueError, match="loses this text when it encodes and decodes it, so no step would"
    ):
        load_scorer(ScorerSpec(word_policy, base=word_policy, aggregation="min"))
    assert load_scorer(ScorerSpec(word_policy, base=word_policy))
