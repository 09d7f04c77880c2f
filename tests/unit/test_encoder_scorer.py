"""Encoders: the tokenizer's own pair of texts, batches, and what is refused."""

from pathlib import Path

import pytest
import torch
from support.reward_kinds import MAKERS, QUESTION, STEPS, rewrite
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from orchestrator.conversations.chat import load_chat
from orchestrator.scorers.encoder import EncoderScorer
from orchestrator.search.engines import Ids

USER = [{"role": "user", "content": QUESTION}]
ENCODERS = ("deberta", "bert", "roberta")


@pytest.mark.parametrize("kind", ENCODERS)
def test_prompt_response_and_closing_are_the_tokenizers_own_pair(kind: str, tmp_path: Path) -> None:
    checkpoint = MAKERS[kind](tmp_path)
    chat, tokenizer = load_chat(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    assert chat.text_pair and chat.closing_ids == (tokenizer.sep_token_id,)
    assert chat.end_ids == (tokenizer.sep_token_id,)
    for response in ("so the answer is 5 .", "".join(STEPS), "", "5"):
        whole = tokenizer([(QUESTION, response)])["input_ids"][0]
        own = chat.prompt_ids(USER) + chat.response_ids(response) + chat.closing_ids
        assert list(own) == whole
    between = 2 if kind == "roberta" else 1
    assert chat.prompt_ids(USER).count(tokenizer.sep_token_id) == between


def test_bert_has_no_end_token_and_none_is_asked_for(tmp_path: Path) -> None:
    assert load_chat(MAKERS["bert"](tmp_path)).tokenizer.eos_token_id is None


def test_several_messages_are_one_text(tmp_path: Path) -> None:
    chat = load_chat(MAKERS["roberta"](tmp_path))
    turns = [{"role": "user", "content": "2"}, {"role": "assistant", "content": "3"}, *USER]
    text = chat.tokenizer(f"2\n\n3\n\n{QUESTION}")["input_ids"]
    assert chat.prompt_ids(turns) == (*text, chat.tokenizer.sep_token_id)


@pytest.mark.parametrize("kind", ENCODERS)
def test_padding_in_a_batch_changes_no_score(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = EncoderScorer(MAKERS[kind](tmp_path))
    prompt, y = scorer.chat.prompt_ids(USER), scorer.chat.response_ids("".join(STEPS))
    forwards: list[int] = []
    scorer.model.register_forward_hook(lambda *_: forwards.append(1))
    args = ([prompt], [y], [range(len(y) + 1)])
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 10**6)
    together = scorer.prefix_scores(*args)[0]
    assert len(forwards) == 1
    bound = 3 * (len(prompt) + len(y) + 1)
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", bound)
    assert scorer.prefix_scores(*args)[0] == pytest.approx(together, abs=1e-5)
    assert len(forwards) > 3, "batches hold no more padded tokens than allowed"
    assert torch.tensor(together).std() > 0.05


def test_prefixes_that_are_the_same_are_computed_once(tmp_path: Path) -> None:
    scorer = EncoderScorer(MAKERS["bert"](tmp_path))
    prompt, y = scorer.chat.prompt_ids(USER), scorer.chat.response_ids("".join(STEPS))
    sizes: list[int] = []
    scorer.model.register_forward_hook(lambda model, args, out: sizes.append(len(out.logits)))
    cuts = [3, len(y), 10**3, 10**6, 3]
    first, second = scorer.prefix_scores([prompt] * 2, [y] * 2, [cuts, cuts[::-1]])
    assert sizes == [2]
    assert first == second[::-1] and first[1] == first[2] == first[3] and first[0] == first[4]
    assert abs(first[0] - first[1]) > 0.01


def test_token_types_tell_bert_the_prompt_from_the_prefix(tmp_path: Path) -> None:
    """Without them the numbers are others."""
    scorer = EncoderScorer(MAKERS["bert"](tmp_path))
    prompt, y = scorer.chat.prompt_ids(USER), scorer.chat.response_ids(STEPS[2])
    ids = torch.tensor([prompt + y + scorer.chat.closing_ids])
    with torch.no_grad():
        untyped = float(scorer.model(input_ids=ids).logits)
    assert abs(scorer.prefix_scores([prompt], [y], [[len(y)]])[0][0] - untyped) > 0.01


def test_a_text_longer_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    scorer = EncoderScorer(MAKERS["bert"](tmp_path))
    prompt = scorer.chat.prompt_ids(USER)
    room = 256 - len(prompt) - 1
    y: Ids = (6,) * (room + 1)
    assert len(scorer.prefix_scores([prompt], [y], [[room]])[0]) == 1
    with pytest.raises(ValueError, match="a text of 257 tokens: the reward model reads 256"):
        scorer.prefix_scores([prompt], [y], [[room, room + 1]])


def test_an_encoder_without_its_head_or_of_two_labels_is_refused(tmp_path: Path) -> None:
    checkpoint = MAKERS["bert"](tmp_path / "bert")
    rewrite(tmp_path / "bert", {}, drop=("classifier.weight", "classifier.bias"))
    with pytest.raises(ValueError, match=r"missing: classifier.bias, classifier.weight"):
        EncoderScorer(checkpoint)
    config = BertConfig.from_pretrained(checkpoint, num_labels=2)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"2 labels, .*valid: score_label from 0 to 1"):
        EncoderScorer(checkpoint)
