"""What a checkpoint is, by its config and the names of its weights; no weight is read for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.reward_kinds import MAKERS, bert, process_head, renamed, rewrite, sequence
from transformers import BertConfig, BertForTokenClassification, LlamaConfig, T5Config

from orchestrator.scorers.detect import inspect_checkpoint, kind_of
from orchestrator.scorers.encoder import EncoderScorer
from orchestrator.scorers.kind import kinds_in_order
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.step_tag import StepTagScorer

FORMS = {
    "sequence": "classifier", "ultra_rm": "classifier", "value_head": "value head",
    "deberta": "encoder", "bert": "encoder", "roberta": "encoder",
    "process_head": "process head", "token_classes": "token classes", "shepherd": "language model",
}  # fmt: skip
CLASSES = {"sequence": SequenceScorer, "encoder": EncoderScorer, "step_tag": StepTagScorer}


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_tells_its_kind_and_other_kinds_are_refused(name: str, tmp_path: Path) -> None:
    checkpoint = MAKERS[name](tmp_path)
    info = inspect_checkpoint(checkpoint)
    assert info.head_type == FORMS[name]
    kinds = kinds_in_order()
    fits = [k for k, kind in kinds.items() if kind.fits(ScorerSpec(checkpoint), info)]
    fitting, *further = fits
    assert further == {"shepherd": ["log_ratio"], "value_head": ["step_tag"]}.get(name, [])
    assert isinstance(load_scorer(ScorerSpec(checkpoint, fitting)), CLASSES[fitting])
    if kinds[fitting].recognizes(ScorerSpec(checkpoint), info):
        assert kind_of(ScorerSpec(checkpoint)) == fitting
        assert isinstance(load_scorer(ScorerSpec(checkpoint)), CLASSES[fitting])
    else:
        assert info.head_type in ("language model", "value head")
    for kind in set(CLASSES) - set(fits):
        with pytest.raises(
            ValueError, match=rf"{tmp_path}: cannot be a scorer of kind '{kind}': it is a "
        ):
            load_scorer(ScorerSpec(checkpoint, kind))


def test_a_language_model_is_a_reward_model_only_where_that_is_said(word_policy: str) -> None:
    """Every Llama 2 knows Math-Shepherd's tag: nothing tells a policy from a judge of steps."""
    with pytest.raises(
        ValueError, match=r"LlamaForCausalLM.*no reward head.*valid: a preset \(math-"
    ):
        load_scorer(ScorerSpec(word_policy))
    with pytest.raises(ValueError, match="does not know the step tag 'ки'"):
        load_scorer(ScorerSpec(word_policy, "step_tag"))


def test_the_specs_fields_reach_the_scorer(tmp_path: Path) -> None:
    spec = ScorerSpec(process_head(tmp_path), None, "min", " .", " so")
    scorer, plain = load_scorer(spec), load_scorer(ScorerSpec(spec.checkpoint))
    assert scorer.closing("open") == scorer.chat.response_ids(" so")
    prompt = scorer.chat.prompt_ids([{"role": "user", "content": "what is 2 and 3 ?"}])
    y = scorer.chat.response_ids("that is 5 . so 2 . so")
    first, last = (y[: len(scorer.chat.response_ids(text))] for text in ("that is 5 .", ""))
    assert last == ()
    rewards = [
        StepTagScorer(spec.checkpoint, step_delimiter=" .", step_tag=" so").prefix_scores(
            [prompt], [y], [[t]]
        )[0][0]
        for t in (len(first), len(scorer.chat.response_ids("that is 5 . so 2 .")), len(y))
    ]
    assert scorer.prefix_scores([prompt], [y], [[len(y)]])[0][0] == pytest.approx(min(rewards))
    assert min(rewards) < rewards[-1], "the least is not the last"
    assert plain.prefix_scores([prompt], [y], [[len(y)]])[0][0] != pytest.approx(min(rewards))


def test_detection_reads_no_weights(tmp_path: Path) -> None:
    """Of a checkpoint in shards the index, and of the head's shard the header."""
    checkpoint = process_head(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    assert kind_of(ScorerSpec(checkpoint)) == "step_tag"


def test_of_several_labels_one_must_be_chosen(tmp_path: Path) -> None:
    checkpoint = sequence(tmp_path / "causal")
    rewrite(tmp_path / "causal", {"score.weight": torch.zeros(3, 32)})
    with pytest.raises(
        ValueError, match=r"its head has 3 labels, .*valid: score_label from 0 to 2"
    ):
        load_scorer(ScorerSpec(checkpoint))
    with pytest.raises(ValueError, match=r"score_label = 3: its head has 3 labels; valid: .* 0 to"):
        kind_of(ScorerSpec(checkpoint, score_label=3))
    assert kind_of(ScorerSpec(checkpoint, score_label=2)) == "sequence"
    checkpoint = bert(tmp_path / "encoder")
    renamed(tmp_path / "encoder", "BertForSequenceClassification", id2label={"0": "a", "1": "b"})
    with pytest.raises(ValueError, match="its head has 2 labels"):
        load_scorer(ScorerSpec(checkpoint))
    one = MAKERS["value_head"](tmp_path / "one")
    assert kind_of(ScorerSpec(one, "sequence", score_label=0)) == "sequence"
    with pytest.raises(ValueError, match="score_label = 1: its head has one label"):
        kind_of(ScorerSpec(one, "sequence", score_label=1))
    steps = process_head(tmp_path / "steps")
    with pytest.raises(ValueError, match="score_label = 1: a scorer of kind 'step_tag' does not"):
        kind_of(ScorerSpec(steps, score_label=1))


def test_forms_that_nothing_here_can_ask_say_what_they_are(tmp_path: Path) -> None:
    checkpoint = bert(tmp_path / "headless")
    rewrite(tmp_path / "headless", {}, drop=("classifier.weight", "classifier.bias"))
    with pytest.raises(ValueError, match="an encoder without a classifier"):
        load_scorer(ScorerSpec(checkpoint))
    model = BertForTokenClassification(BertConfig.from_pretrained(checkpoint, num_labels=2))
    model.save_pretrained(tmp_path / "tokens")
    with pytest.raises(ValueError, match=r"a bidirectional token classifier$"):
        load_scorer(ScorerSpec(str(tmp_path / "tokens")))
    for config, name in (
        (T5Config(), "t5, an encoder with a decoder"),
        (LlamaConfig(), "llama: no"),
    ):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a.weight": "x"}}')
        with pytest.raises(ValueError, match=f"not a supported reward model: it is a {name}"):
            load_scorer(ScorerSpec(str(folder)))


def test_hub_names_are_read_from_the_hubs_cache(tmp_path: Path) -> None:
    """As the hub's own client lays it out; in a process of its own, without a network."""
    commit = "0" * 40
    folder = tmp_path / "models--maker--model"
    process_head(folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    code = (
        "import json; from orchestrator.scorers.detect import inspect_checkpoint;"
        "from orchestrator.checkpoints.weights import Weights;"
        "shape = Weights.of('maker/model').shape('score.2.weight');"
        "print(json.dumps([inspect_checkpoint('maker/model').head_type, shape]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=1_000,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["process head", [2, 32]]
