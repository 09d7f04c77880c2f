"""The Hugging Face reward engine against AutoModelForSequenceClassification called by hand."""

import math
from pathlib import Path

import pytest
import torch
from conftest import NAN_WORD
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from orchestrator.checkpoints.checkpoint import load_reward_model, save_checkpoint
from orchestrator.conversations.chat import load_chat
from orchestrator.decoding.bisect import answer_bisecting
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest, SequenceDoesNotFit
from orchestrator.search.problem import PromptFailed
from orchestrator.tasks.helpdesk import agents

TOLERANCE = 1e-4


def texts(count: int) -> list[tuple[str, str]]:
    rows = [agents.demonstration(prompt, 3) for prompt in agents.prompts(count, seed=3)]
    return [(row.prompt.messages[0]["content"], row.response) for row in rows]


def by_hand(checkpoint: str, ids: list[Ids]) -> list[float]:
    """One padded batch as the Hugging Face documentation has it: right padding, a pad token.

    The pad token is <pad>, which no text holds: with pad = eos its classifier would read the
    position before the closing.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer.padding_side = "right"
    model.config.pad_token_id = tokenizer.pad_token_id
    batch = tokenizer.pad({"input_ids": [list(row) for row in ids]}, return_tensors="pt")
    with torch.no_grad():
        return [float(x) for x in model(**batch).logits[:, 0]]


def test_whole_responses_score_as_the_classifier_itself_scores_them(word_reward: str) -> None:
    engine = SequenceScorer(word_reward)
    chat = engine.chat
    pairs = texts(6)
    prompts = [chat.prompt_ids([{"role": "user", "content": x}]) for x, _ in pairs]
    responses = [chat.response_ids(y) for _, y in pairs]
    expected = by_hand(
        word_reward, [x + y + chat.closing_ids for x, y in zip(prompts, responses, strict=True)]
    )
    found = engine.prefix_scores(prompts, responses, [[len(y)] for y in responses])
    assert torch.tensor(expected).std() > 0.05
    assert [row[0] for row in found] == pytest.approx(expected, abs=TOLERANCE)

    requests = [ScoreRequest(x, y, ((),)) for x, y in zip(prompts, responses, strict=True)]
    assert [s.scores[0] for s in engine.score(requests)] == pytest.approx(expected, abs=TOLERANCE)


def test_a_pad_token_that_is_the_end_token_changes_no_score(
    word_reward: str, tmp_path: Path
) -> None:
    """Llama's habit: there the classifier's own batch finds the wrong last token."""
    tokenizer = AutoTokenizer.from_pretrained(word_reward)
    tokenizer.pad_token = tokenizer.eos_token
    model = load_reward_model(word_reward)
    model.config.pad_token_id = tokenizer.eos_token_id
    save_checkpoint(model, tokenizer, tmp_path / "padded_by_end")
    own, other = SequenceScorer(word_reward), SequenceScorer(str(tmp_path / "padded_by_end"))
    assert other.chat.tokenizer.pad_token_id == other.chat.tokenizer.eos_token_id
    prompts = [own.chat.prompt_ids([{"role": "user", "content": x}]) for x, _ in texts(4)]
    responses = [own.chat.response_ids(y) for _, y in texts(4)]
    cuts = [[1, 5, 10**6]] * 4
    for found, expected in zip(
        other.prefix_scores(prompts, responses, cuts),
        own.prefix_scores(prompts, responses, cuts),
        strict=True,
    ):
        assert found == pytest.approx(expected, abs=1e-6)


def test_open_scoring_reads_the_last_content_token(word_reward: str) -> None:
    engine = SequenceScorer(word_reward, position="open")
    prompt = engine.chat.prompt_ids([{"role": "user", "content": texts(1)[0][0]}])
    response = engine.chat.response_ids(texts(1)[0][1])
    cuts = [1, 4, len(response)]
    expected = by_hand(word_reward, [prompt + response[:t] for t in cuts])
    assert engine.prefix_scores([prompt], [response], [cuts])[0] == pytest.approx(
        expected, abs=TOLERANCE
    )
    closed = engine.prefix_scores([prompt], [response], [cuts], ["closed"])[0]
    both = engine.prefix_scores([prompt], [response], [cuts], ["open", "closed"])[0]
    open_ = engine.prefix_scores([prompt], [response], [cuts], ["open"])[0]
    assert both == pytest.approx([*open_, *closed], abs=1e-5)
    assert closed == pytest.approx(
        by_hand(word_reward, [prompt + response[:t] + engine.chat.closing_ids for t in cuts]),
        abs=TOLERANCE,
    )


def test_extensions_of_one_prefix_score_as_separate_texts_and_cost_it_once(
    word_reward: str,
) -> None:
    engine = SequenceScorer(word_reward)
    prompt = engine.chat.prompt_ids([{"role": "user", "content": texts(1)[0][0]}])
    prefix = engine.chat.response_ids("hello . first")
    extensions = tuple(engine.chat.response_ids(y) for y in ("seal the lid .", "", "oil the"))
    (scored,) = engine.score([ScoreRequest(prompt, prefix, extensions)])
    closing = engine.chat.closing_ids
    expected = by_hand(word_reward, [prompt + prefix + e + closing for e in extensions])
    assert scored.scores == pytest.approx(expected, abs=TOLERANCE)
    tails = sum(len(e) + len(closing) for e in extensions)
    assert scored.tokens_computed == len(prompt) + len(prefix) + tails


def test_extensions_longer_than_their_prefix_are_spread_over_rows(word_reward: str) -> None:
    """A dense mask pays for all pairs of positions; the trunk is computed once all the same."""
    engine = SequenceScorer(word_reward)
    prompt = engine.chat.prompt_ids([{"role": "user", "content": texts(1)[0][0]}])
    long = [engine.chat.response_ids(y) for _, y in texts(4)]
    assert all(len(prompt) < 2 * len(y) for y in long)
    (scored,) = engine.score([ScoreRequest(prompt, (), (*long, ()))])
    alone = [engine.score([ScoreRequest(prompt, (), (y,))])[0] for y in (*long, ())]
    assert scored.scores == pytest.approx([s.scores[0] for s in alone], abs=TOLERANCE)
    tails = sum(len(y) + 1 for y in (*long, ()))
    assert scored.tokens_computed == len(prompt) + tails
    assert scored.tokens_reused == 4 * len(prompt), "five texts, one of them computed"
    assert [one.tokens_computed for one in alone] == [len(y) + 1 for y in (*long, ())]


@pytest.mark.parametrize("position", ["closed", "open"])
def test_with_another_tokenizer_than_the_policys_the_text_decides(
    word_policy: str, byte_reward: str, position: str
) -> None:
    """Words against byte-level BPE: ids of the policy give the number of the text itself."""
    policy_chat, own = load_chat(word_policy), load_chat(byte_reward)
    engine = SequenceScorer(byte_reward, position, policy_chat)  # type: ignore[arg-type]
    assert not engine.shares_tokenizer
    requests, wanted, tokens = [], [], list[int]()
    for x, y in texts(4):
        prompt = own.prompt_ids([{"role": "user", "content": x}])
        ids = policy_chat.response_ids(y)
        requests.append(ScoreRequest(prompt, ids[:5], ((), ids[5:8], ids[5:])))
        words = y.split()
        pieces = [own.response_ids(" ".join(words[:n])) for n in (5, 8, len(words))]
        closing = own.closing_ids if position == "closed" else ()
        wanted.append([prompt + piece + closing for piece in pieces])
        tokens.append(_distinct(prompt, pieces) + 3 * len(closing))
        assert own.response_ids(y) != ids
    for scored, rows, count in zip(engine.score(requests), wanted, tokens, strict=True):
        assert scored.scores == pytest.approx(by_hand(byte_reward, rows), abs=TOLERANCE)
        assert scored.tokens_computed == count


def _distinct(prompt: Ids, pieces: list[Ids]) -> int:
    """Tokens of a prompt, of what all pieces begin with, and of what each has of its own."""
    shared = 0
    while len({piece[shared : shared + 1] for piece in pieces}) == 1:
        shared += 1
    return len(prompt) + shared + sum(len(piece) - shared for piece in pieces)


def test_a_cut_inside_a_character_scores_what_is_whole(word_reward: str, byte_reward: str) -> None:
    """The policy writes bytes, the reward model pieces: half a character is none there."""
    policy_chat = load_chat(byte_reward)
    scorer = SequenceScorer(word_reward, policy_chat=policy_chat)
    whole, character = policy_chat.response_ids("hello ."), policy_chat.response_ids("🙂")
    assert len(character) > 1 and policy_chat.text(whole + character[:1]) == "hello .\ufffd"
    assert scorer.token_converter.convert_response(whole + character[:1], (), False)[
        1
    ] == scorer.chat.response_ids("hello .")
    assert scorer.token_converter.convert_response(whole + character, (), False)[
        1
    ] == scorer.chat.response_ids("hello .🙂")


def test_a_response_that_outgrows_the_model_in_its_own_tokens_is_refused_alone(
    word_policy: str, byte_reward: str
) -> None:
    policy_chat = load_chat(word_policy)
    engine = SequenceScorer(byte_reward, "open", policy_chat)
    prompt = engine.chat.prompt_ids([{"role": "user", "content": "order 1 ."}])
    word = policy_chat.response_ids("order")
    short, long = (ScoreRequest(prompt, word, (word * n,)) for n in (2, 100))
    engine.context_length = (
        len(prompt) + 60
    )  # the words fit by the policy's count, their pieces do not
    with pytest.raises(
        SequenceDoesNotFit, match=rf"the reward model reads {engine.context_length} at most"
    ):
        engine.score([short, long])
    first, second = answer_bisecting(engine.score, [short, long], engine.clear_cache)
    assert isinstance(first, Scored) and isinstance(second, PromptFailed)


def test_the_same_tokenizer_passes_ids_straight_through(word_policy: str, word_reward: str) -> None:
    assert SequenceScorer(word_reward, policy_chat=load_chat(word_policy)).shares_tokenizer
    assert SequenceScorer(word_reward).shares_tokenizer


def test_scores_do_not_depend_on_how_rows_are_batched(
    word_reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SequenceScorer(word_reward)
    prompts = [engine.chat.prompt_ids([{"role": "user", "content": x}]) for x, _ in texts(5)]
    responses = [engine.chat.response_ids(y) for _, y in texts(5)]
    cuts = [[3], [1, 2, 9], [10**6], [4, 4], [7]]
    whole = engine.prefix_scores(prompts, responses, cuts)
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 1)
    for found, expected in zip(engine.prefix_scores(prompts, responses, cuts), whole, strict=True):
        assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_weight_that_is_nan_stops_the_scoring_and_names_the_rows(broken_reward: str) -> None:
    engine = SequenceScorer(broken_reward)
    prompt = engine.chat.prompt_ids([{"role": "user", "content": "hello"}])
    with pytest.raises(
        RewardIsNotFinite, match=r"rewards of 2 of 2 rows are not finite: rows \[0, 1\]"
    ):
        engine.prefix_scores([prompt] * 2, [(7,)] * 2, [[1]] * 2)


def test_what_is_nan_of_a_batch_leaves_the_other_scores_alone(
    nan_reward: str, word_reward: str
) -> None:
    engine, whole = (SequenceScorer(name, cache_mib=0) for name in (nan_reward, word_reward))
    bad = engine.chat.response_ids(NAN_WORD)
    assert len(bad) == 1
    for round_ in range(3):  # keys and values of NaN are not read as others' padding later on
        requests = [
            ScoreRequest((9,) * n, bad * (n == 3), ((7 + round_,), (8,))) for n in range(1, 9)
        ]
        for n, (found, expected) in enumerate(
            zip(engine.score(requests), whole.score(requests), strict=True), start=1
        ):
            if n == 3:
                assert all(map(math.isnan, found.scores))
            else:
                assert found.scores == pytest.approx(expected.scores, abs=TOLERANCE)


def test_a_classifier_of_two_labels_is_refused(word_policy: str, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(word_policy, num_labels=2)
    save_checkpoint(model, load_chat(word_policy).tokenizer, tmp_path)
    with pytest.raises(ValueError, match=r"2 labels, .*valid: score_label from 0 to 1"):
        load_reward_model(str(tmp_path))
