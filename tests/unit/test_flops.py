"""FLOPs by hand: which parameters count, and what a response's tokens come to."""

from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURE
from safetensors.torch import save_file
from support.reward_kinds import MAKERS
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.checkpoints.weights import read_config
from orchestrator.evaluation.flops import Sizes
from orchestrator.records import Cost
from orchestrator.scorers.parameters import scorer_parameters
from orchestrator.scorers.spec import ScorerSpec

# Hidden 32, MLP 48, 4 heads of 8 and 2 of keys and values: q, k, v, o; gate, up, down; 2 layers.
LAYER = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
BACKBONE = 2 * LAYER


def test_a_tied_head_counts_once_and_the_look_up_never(word_policy: str) -> None:
    assert ARCHITECTURE["hidden_size"] == 32 and ARCHITECTURE["intermediate_size"] == 48
    vocabulary = read_config(word_policy)["vocab_size"]
    assert matrix_parameters(word_policy, language_head=True) == BACKBONE + 32 * vocabulary
    assert matrix_parameters(word_policy, language_head=False) == BACKBONE


def test_an_untied_head_counts_by_its_own_size(tmp_path: Path) -> None:
    """Whether stored beside the embeddings or not; vectors never count."""
    tensors = {
        "model.embed_tokens.weight": torch.zeros(10, 4),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(6, 4),
        "model.layers.0.mlp.up_proj.bias": torch.zeros(6),
        "model.norm.weight": torch.zeros(4),
        "lm_head.weight": torch.zeros(11, 4),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert matrix_parameters(str(tmp_path), language_head=True) == 24 + 44
    assert matrix_parameters(str(tmp_path), language_head=False) == 24


def test_of_experts_those_count_that_a_token_goes_through(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    attention, router, expert = 2 * 8 * 8 + 2 * 8 * 4, 4 * 8, 3 * 8 * 16
    wanted = attention + router + 2 * expert + 20 * 8
    assert matrix_parameters(str(tmp_path), language_head=True) == wanted


def test_a_scorer_counts_its_reward_head_and_a_log_ratio_both_its_models(
    word_policy: str, word_reward: str, tmp_path: Path
) -> None:
    assert scorer_parameters(ScorerSpec(word_reward)) == BACKBONE + 32
    head = 32 * read_config(word_policy)["vocab_size"]
    ratio = ScorerSpec(word_policy, base=word_policy)
    assert scorer_parameters(ratio) == BACKBONE + head, "each token is counted once a model"
    shepherd = MAKERS["shepherd"](tmp_path / "shepherd")
    assert scorer_parameters(ScorerSpec(shepherd, kind="step_tag")) == matrix_parameters(
        shepherd, language_head=True
    )


def test_an_encoders_tables_are_looked_up_in_too(tmp_path: Path) -> None:
    checkpoint = MAKERS["deberta"](tmp_path / "encoder")
    config = read_config(checkpoint)
    width, inner = config["hidden_size"], config["intermediate_size"]
    layer = 4 * width * width + 2 * width * inner
    pooler_and_head = width * width + width
    found = scorer_parameters(ScorerSpec(checkpoint))
    assert found == config["num_hidden_layers"] * layer + pooler_and_head


def test_a_responses_flops_are_two_a_parameter_and_token_computed() -> None:
    cost = Cost(policy_tokens_sampled=5, policy_tokens_computed=7, reward_tokens_computed=11)
    assert Sizes(100, 30).flops(cost) == {
        "policy_flops": 2 * 100 * 7, "reward_flops": 2 * 30 * 11, "flops": 1400 + 660,
    }  # fmt: skip
    assert Sizes(100).flops(cost)["reward_flops"] == 0
    doubled = Sizes(100, 30).flops(cost + cost)
    assert doubled["flops"] == pytest.approx(2 * 2060)
