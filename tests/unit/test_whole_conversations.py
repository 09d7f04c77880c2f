"""A reward model's score of a whole conversation is the one that its card computes.

Every path of ours against transformers: the template's rendering, tokenized, through the model.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from support.reward_kinds import MAKERS
from support.template_families import FAMILIES, reward_model
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from orchestrator.checkpoints.checkpoint import load_reward_model
from orchestrator.conversations.chat import load_chat
from orchestrator.data.prefixes import Prefixes
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.objective import LossContext
from orchestrator.records import Message, PreferencePair, Prompt
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.token_converter import TokenConverter
from orchestrator.scorers.vllm_sequence import VllmSequenceScorer
from orchestrator.search.engines import ScoreRequest
from orchestrator.training.pair_rows import whole_pair

TOLERANCE = 1e-5
SYSTEM = {"role": "system", "content": "Answer in one sentence."}
QUESTION = {"role": "user", "content": "What is 2 plus 3?"}
ANSWER = "First add 2 and 3.\n\nThat is 5. So the answer is 5!"
TURNS = [
    {"role": "user", "content": "What is the capital of France, please?"},
    {"role": "assistant", "content": "Paris. naïve café 你好 🙂"},
    {"role": "user", "content": "So?"},
    {"role": "assistant", "content": "So what?"},
    QUESTION,
]
CONVERSATIONS: dict[str, list[Message]] = {
    "one turn": [QUESTION],
    "three turns": TURNS,
    "system, one turn": [SYSTEM, QUESTION],
    "system, three turns": [SYSTEM, *TURNS],
}
RESPONSES = {
    "plain": ANSWER,
    "white space around": "\n First add 2 and 3.  \n",
    "in the prompt too": QUESTION["content"],
    "one letter": "5",
}


@lru_cache
def folders() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = str(request.param)
    if name not in folders():
        folders()[name] = reward_model(name, tmp_path_factory.mktemp("family"))
    return name


@torch.no_grad()
def by_transformers(family: str, messages: Sequence[Message], response: str) -> float:
    """As a card does it: the template's text of the conversation, tokenized, the model's logit."""
    folder = folders()[family]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = list(messages)
    if messages[0]["role"] == "system" and not FAMILIES[family].writes_system:
        system, user, *rest = messages
        content = f"{system['content']}\n\n{user['content']}"
        messages = [{"role": "user", "content": content}, *rest]
    messages.append({"role": "assistant", "content": response})
    if FAMILIES[family].template is None:
        text = "\n\n".join(message["content"] for message in messages) + tokenizer.eos_token
    else:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return float(model(input_ids=inputs["input_ids"]).logits)


def score_job(scorer: Scorer, spec: ScorerSpec, messages: Any, response: str) -> float:
    reader = RowReader(spec, "closed", "response", Prefixes.parse("whole"), 0, "file")
    row = reader.read(1, {"prompt": messages, "response": response})
    scores = scorer.prefix_scores([row.prompt_ids], row.responses, row.cuts)
    return scores[0][0]


def search(
    scorer: Scorer, messages: Any, response: str, policy: str, split: int, position: str = "closed"
) -> float:
    """As search asks: the response in the policy's tokens, some of them known before."""
    _, ids = load_chat(policy).answered(messages, response)
    request = ScoreRequest(
        scorer.chat.reward_prompt_ids(messages), ids[:split], (ids[split:],), (True,)
    )
    return scorer.score([request])[0].scores[0]


def training(spec: ScorerSpec, messages: Any, response: str, other: str) -> float:
    """The loss of a pair: -log sigma of the scores' difference."""
    chat = load_chat(spec.checkpoint)
    pair = PreferencePair("p", Prompt("x", tuple(messages)), response, other)
    model = load_reward_model(spec.checkpoint).train()
    row = whole_pair(pair, chat)
    loss, _ = BradleyTerry.loss(LossContext(model, closing_ids=chat.closing_ids), [row])
    return float(loss)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_every_path_gives_the_score_of_the_templates_rendering(
    family: str, conversation: str, byte_reward: str
) -> None:
    folder, messages = folders()[family], CONVERSATIONS[conversation]
    spec = ScorerSpec(folder)
    same, open_ = load_scorer(spec), load_scorer(spec, "open")
    others = load_scorer(spec, policy_chat=load_chat(byte_reward))
    assert not others.shares_tokenizer
    scores = {}
    for name, response in RESPONSES.items():
        wanted = scores[name] = by_transformers(family, messages, response)
        found = {
            "score job": score_job(same, spec, messages, response),
            "search": search(same, messages, response, folder, 0),
            "search, known prefix": search(same, messages, response, folder, 2),
            "search, finished in open scoring": search(open_, messages, response, folder, 1),
            "search, another tokenizer": search(others, messages, response, byte_reward, 1),
        }
        for path, score in found.items():
            assert score == pytest.approx(wanted, abs=TOLERANCE), (path, name)
    assert torch.tensor(list(scores.values())).std() > 0.01
    loss = training(spec, messages, RESPONSES["plain"], RESPONSES["one letter"])
    gap = torch.tensor(scores["plain"] - scores["one letter"])
    assert loss == pytest.approx(float(-logsigmoid(gap)), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("families", [list(FAMILIES)[:3], list(FAMILIES)[3:]])
def test_vllm_gives_the_same_scores(
    families: list[str], vllm: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All families have the same weights: one engine reads the tokens of each."""
    for name in families:
        folders().setdefault(name, reward_model(name, tmp_path_factory.mktemp("family")))
    scorer = VllmSequenceScorer(folders()[families[0]])
    try:
        for family in families:
            scorer.chat = load_chat(folders()[family])
            scorer.token_converter = TokenConverter(None, scorer.chat)
            spec = ScorerSpec(folders()[family])
            for messages in (CONVERSATIONS["one turn"], CONVERSATIONS["system, three turns"]):
                wanted = by_transformers(family, messages, ANSWER)
                found = score_job(scorer, spec, messages, ANSWER)
                assert found == pytest.approx(wanted, abs=TOLERANCE), family
                found = search(scorer, messages, ANSWER, folders()[family], 2)
                assert found == pytest.approx(wanted, abs=TOLERANCE), family
    finally:
        scorer.close()


@pytest.mark.parametrize("kind", ["deberta", "bert", "roberta"])
def test_an_encoder_reads_the_tokenizers_own_pair(kind: str, tmp_path: Path) -> None:
    """As OpenAssistant's DeBERTa: the question and the answer as a pair of texts."""
    folder = MAKERS[kind](tmp_path)
    question, answer = "what is 2 and 3 ?", "first add 2 and 3 . that is 5 ."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = float(model(**tokenizer(question, answer, return_tensors="pt")).logits)
    spec = ScorerSpec(folder)
    scorer, messages = load_scorer(spec), [{"role": "user", "content": question}]
    assert score_job(scorer, spec, messages, answer) == pytest.approx(wanted, abs=TOLERANCE)
    assert search(scorer, messages, answer, folder, 2) == pytest.approx(wanted, abs=TOLERANCE)
