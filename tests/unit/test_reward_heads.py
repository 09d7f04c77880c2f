"""Reward heads under other trainers' names, and checkpoints that are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.reward_kinds import (
    MAKERS,
    SIZES,
    WIDTH,
    bytes_with,
    renamed,
    rewrite,
    ultra_rm,
    value_head,
)
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from orchestrator.checkpoints.checkpoint import context_of, load_reward_model, save_checkpoint
from orchestrator.checkpoints.weights import Weights
from orchestrator.conversations.chat import load_chat

IDS = torch.tensor([[5, 9, 40, 7, 31]])


@torch.no_grad()
def reward(model: PreTrainedModel) -> float:
    return float(model.score(model.base_model(IDS).last_hidden_state)[0, -1, 0])


@torch.no_grad()
def by_hand(folder: Path, head: str) -> float:
    states = LlamaForCausalLM.from_pretrained(folder).base_model(IDS).last_hidden_state[0, -1]
    weights = load_file(folder / "model.safetensors")
    return float(weights[f"{head}.weight"][0] @ states + weights.get(f"{head}.bias", 0.0))


@pytest.mark.parametrize(
    "name",
    ["v_head.summary", "v_head", "value_head", "value_head.summary", "reward_head", "score"],
)
def test_a_head_of_any_known_name_is_read_with_its_bias(name: str, tmp_path: Path) -> None:
    model = load_reward_model(value_head(tmp_path, name))
    assert reward(model) == pytest.approx(by_hand(tmp_path, name), abs=1e-5)
    assert model.score.bias.item() == pytest.approx(0.7)


def test_ultra_rms_head_has_no_bias_and_its_config_no_label(tmp_path: Path) -> None:
    model = load_reward_model(ultra_rm(tmp_path))
    assert isinstance(model, LlamaForSequenceClassification) and model.score.bias is None
    assert model.config.num_labels == 1
    assert reward(model) == pytest.approx(by_hand(tmp_path, "regression_head"), abs=1e-5)


@pytest.mark.parametrize("maker", [ultra_rm, value_head], ids=["no bias", "bias"])
def test_saved_it_is_a_plain_classifier_of_the_same_rewards_and_format(
    maker: Callable[[Path], str], tmp_path: Path
) -> None:
    checkpoint = maker(tmp_path / "given")
    model, chat = load_reward_model(checkpoint), load_chat(checkpoint)
    save_checkpoint(model, chat.tokenizer, tmp_path / "saved")
    names = Weights.of(str(tmp_path / "saved")).names
    assert "score.weight" in names and not any("head" in name for name in names)
    again, other = load_reward_model(str(tmp_path / "saved")), load_chat(str(tmp_path / "saved"))
    assert reward(again) == pytest.approx(reward(model), abs=1e-6)
    user = [{"role": "user", "content": "what is 2 ?"}]
    assert other.prompt_ids(user) == chat.prompt_ids(user)
    assert other.closing_ids == chat.closing_ids
    if maker is ultra_rm:
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
        assert reward(plain) == pytest.approx(reward(model), abs=1e-5)


def test_a_language_model_without_a_reward_head_is_refused(
    tmp_path: Path, word_policy: str
) -> None:
    """A random one is what transformers would give, and warn."""
    message = r"no reward head \(score, regression_head, .*\) among its weights"
    with pytest.raises(ValueError, match=f"{word_policy}: {message}"):
        load_reward_model(word_policy)
    with pytest.raises(ValueError, match="its head has 2 labels"):
        load_reward_model(MAKERS["process_head"](tmp_path))


def test_missing_weights_of_the_backbone_are_named(tmp_path: Path) -> None:
    checkpoint = ultra_rm(tmp_path)
    rewrite(tmp_path, {}, drop=("model.norm.weight", "model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(
        ValueError,
        match=rf"{tmp_path}: .*missing: model.layers.1.mlp.up_proj.weight, model.norm.weight",
    ):
        load_reward_model(checkpoint)


def test_of_many_missing_weights_some_are_named(tmp_path: Path) -> None:
    model = LlamaForSequenceClassification(LlamaConfig(vocab_size=9, num_labels=1, **SIZES))
    state = {f"transformer.{k}": v for k, v in model.model.state_dict().items()}
    save_checkpoint(model, bytes_with(), tmp_path)
    rewrite(tmp_path, state, drop=tuple(f"model.{k}" for k in model.model.state_dict()))
    with pytest.raises(ValueError, match=r"missing: (model\.[\w.]+, ){4}\S+ and 15 more"):
        load_reward_model(str(tmp_path))


@pytest.mark.parametrize(
    ("head", "value", "message"),
    [
        ("regression_head", torch.zeros(1, WIDTH + 1), "regression_head.weight has 33 inputs"),
        ("regression_head", torch.zeros(3, WIDTH), "3 labels.*valid: score_label from 0 to 2"),
        ("regression_head", torch.zeros(WIDTH), r"regression_head.weight \(32,\) is not a linear"),
        ("v_head", torch.zeros(1, WIDTH), "several reward heads: regression_head.weight, v_head"),
    ],
)
def test_a_head_that_does_not_fit_is_named(
    head: str, value: torch.Tensor, message: str, tmp_path: Path
) -> None:
    checkpoint = ultra_rm(tmp_path)
    rewrite(tmp_path, {f"{head}.weight": value})
    with pytest.raises(ValueError, match=f"{tmp_path}: .*{message}"):
        load_reward_model(checkpoint)


def test_a_score_of_another_width_and_a_bias_that_does_not_fit_are_named(tmp_path: Path) -> None:
    checkpoint = MAKERS["sequence"](tmp_path)
    rewrite(tmp_path, {"score.weight": torch.zeros(1, 8)})
    with pytest.raises(ValueError, match=r"of another shape: score.weight"):
        load_reward_model(checkpoint)
    rewrite(tmp_path, {"score.weight": torch.zeros(1, WIDTH), "score.bias": torch.zeros(2)})
    with pytest.raises(ValueError, match="score is not a linear layer"):
        load_reward_model(checkpoint)


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    checkpoint = ultra_rm(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"{tmp_path}: no weights as safetensors"):
        load_reward_model(checkpoint)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    weights = Weights.of(MAKERS["process_head"](tmp_path))
    assert weights.shape("score.0.weight") == (WIDTH, WIDTH)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002.safetensors with score.2.bias"):
        weights.tensor("score.2.bias")


def test_an_encoder_is_no_causal_reward_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reward head"):
        load_reward_model(MAKERS["bert"](tmp_path / "bert"))
    checkpoint = MAKERS["sequence"](tmp_path / "named")
    renamed(tmp_path / "named", "LlamaRewardModel")
    assert load_reward_model(checkpoint).config.num_labels == 1


def test_the_context_of_a_model_that_counts_from_its_pad_token(tmp_path: Path) -> None:
    assert context_of(MAKERS["bert"](tmp_path / "bert")) == 256
    assert context_of(MAKERS["roberta"](tmp_path / "roberta")) == 254
