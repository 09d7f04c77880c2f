"""One label of a head of several is the score: in every path it is transformers' own logit."""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from support import reward_kinds
from support.odd_checkpoints import changed, copied, labelled
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from jobs.sweep.plan import Plan
from orchestrator.checkpoints.checkpoint import load_reward_model, save_checkpoint
from orchestrator.choices import Position
from orchestrator.config.load import ConfigError, load_config
from orchestrator.config.models import check_models
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.scorer import Scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.vllm_scorer import check_model
from orchestrator.search.engines import Ids, ScoreRequest
from orchestrator.stages.store import Store
from orchestrator.training.job import TrainingJob
from orchestrator.training.model_with_loss import load_initial_model

CHAT = [{"role": "user", "content": "what is 2 and 3 ?"}]
TEXTS = ("first add 2 and 3 .", "that is 5 .")


def bert_of(labels: int, folder: Path) -> str:
    """A BERT classifier of several labels."""
    checkpoint = reward_kinds.bert(folder)
    torch.manual_seed(6)
    config = BertConfig.from_pretrained(checkpoint, num_labels=labels)
    BertForSequenceClassification(config).save_pretrained(folder)
    return checkpoint


MAKERS = {
    "causal": lambda n, folder: changed(labelled(n), reward_kinds.sequence)(folder),
    "encoder": bert_of,
}


@torch.no_grad()
def logit(checkpoint: str, ids: Ids, prompt: int, label: int) -> float:
    """What transformers computes for one text."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    inputs = {"input_ids": torch.tensor([ids])}
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = torch.tensor([[0] * prompt + [1] * (len(ids) - prompt)])
    return float(model(**inputs).logits[0, label])


@pytest.mark.parametrize("position", ["open", "closed"])
@pytest.mark.parametrize(("labels", "label"), [(2, 0), (2, 1), (5, 3)])
@pytest.mark.parametrize("form", MAKERS)
def test_prefixes_and_search_read_the_logit_of_the_label(
    form: str, labels: int, label: int, position: Position, tmp_path: Path
) -> None:
    checkpoint = MAKERS[form](labels, tmp_path / "model")
    scorer: Scorer = load_scorer(ScorerSpec(checkpoint, score_label=label), position)
    prompt = scorer.chat.prompt_ids(CHAT)
    responses = [scorer.chat.response_ids(text) for text in TEXTS]
    cuts = [[1, 3, len(y)] for y in responses]
    closing = scorer.closing(position)
    expected = [
        [logit(checkpoint, prompt + y[:t] + closing, len(prompt), label) for t in row]
        for y, row in zip(responses, cuts, strict=True)
    ]
    found = scorer.prefix_scores([prompt] * 2, responses, cuts)
    assert found == [pytest.approx(row, abs=1e-5) for row in expected]
    searched = scorer.score([ScoreRequest(prompt, y[:1], (y[1:3], y[1:])) for y in responses])
    for scored, row in zip(searched, expected, strict=True):
        assert scored.scores == pytest.approx(row[1:], abs=1e-5)
    assert len({round(value, 3) for row in expected for value in row}) >= 4, "all are alike"


def test_a_training_goes_on_from_the_label_and_saves_a_model_of_one(tmp_path: Path) -> None:
    checkpoint = MAKERS["causal"](5, tmp_path / "model")
    job = TrainingJob(
        "key", "bradley_terry", "reward", checkpoint, "", "", 1e-3, 1, 1, 1, 0, True, 0, {},
        "float32", score_label=4,
    )  # fmt: skip
    model = load_initial_model(job)
    full = AutoModelForSequenceClassification.from_pretrained(checkpoint).score.weight
    assert torch.equal(model.score.weight, full[4:5])
    save_checkpoint(model, load_scorer(ScorerSpec(checkpoint, score_label=4)).chat.tokenizer,
                    tmp_path / "saved")  # fmt: skip
    assert load_reward_model(str(tmp_path / "saved")).config.num_labels == 1
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(plain.score.weight, full[4:5])


def test_vllm_scores_no_head_of_several_labels(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"one label and no bias; this one has score with 2 labels; v"
    ):
        check_model(MAKERS["causal"](2, tmp_path / "model"))


def test_a_config_chooses_the_label_of_each_reward_model(tmp_path: Path, word_reward: str) -> None:
    five = str(copied(word_reward, tmp_path / "five"))
    labelled(5)(tmp_path / "five")
    fields = {"models.orm": five, "models.orm_reading.score_label": 1, "models.reference": five,
              "models.reference_reading.score_label": 2, "variants.mine.checkpoint": five,
              "variants.mine.score_label": 4, "output_dir": tmp_path / "out"}  # fmt: skip

    def plan(**changes: object) -> Plan:
        config = load_config(None, [f"{k}={v}" for k, v in (fields | changes).items()])
        check_models(config)
        return Plan(config, Store(str(tmp_path / "out")))

    first = plan()
    scorers = first.workspace(Console(quiet=True)).models
    labels = {name: scorers.scorer(name).score_label for name in ("orm", "reference", "mine")}
    assert labels == {"orm": 1, "reference": 2, "mine": 4}
    keys = {step.stage.name: step.stage.key for step in first.steps}
    for field, stages in {
        "models.orm_reading.score_label": ("partial_pairs", "variants/prm_sst", "agreement/orm"),
        "models.reference_reading.score_label": ("partial_pairs", "agreement/reference"),
        "variants.mine.score_label": ("agreement/mine", "cells/cbs/mine"),
    }.items():
        changed_keys = {s.stage.name: s.stage.key for s in plan(**{field: 3}).steps}
        assert all(changed_keys[name] != keys[name] for name in stages), field
        assert changed_keys["samples"] == keys["samples"]
    with pytest.raises(
        ConfigError, match=r"models.orm = .*score_label = 9: .*orm_reading: score_label\)"
    ):
        plan(**{"models.orm_reading.score_label": 9})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("models.orm_reading.score_label=1", "models.orm_reading: applies only to a checkpoint"),
        ("variants.prm_sst.score_label=0", "variants.prm_sst.score_label = 0: needs a reward"),
        (
            "variants.ratio={checkpoint: a/b, objective: dpo, score_label: 0}",
            "variants.ratio.score_label = 0: a log ratio compares two language models and does not"
            " use it; valid: null, or a reward model as `checkpoint`, with objective bradley_terry"
            " and without kind log_ratio$",
        ),
        (
            "models.orm_reading.score_label=-1",
            "score_label = -1: .*greater than or equal to 0",
        ),
    ],
)
def test_a_label_of_no_checkpoint_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, [override])
