"""Packed prefix scores against separate forwards, the slow oracle that defines them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from orchestrator.rewards.packed import Branch, PackedRow, pack, packed_scores, prefix_row
from orchestrator.training.bradley_terry import pair_loss
from orchestrator.training.examples import PairExample

EOS = 2
TWO_TOKENS = (7, EOS)  # a closing of more than one token, like "<|eot_id|>\n"
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.3,
    "num_labels": 1, "eos_token_id": EOS, "pad_token_id": None, "head_dim": 8,
}  # fmt: skip
ARCHITECTURES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(num_key_value_heads=4, **SIZES),
    "llama-grouped": lambda: LlamaConfig(num_key_value_heads=2, **SIZES),
    "llama-one-head": lambda: LlamaConfig(num_key_value_heads=1, **SIZES),
    "qwen2": lambda: Qwen2Config(num_key_value_heads=2, **SIZES),
    "qwen3": lambda: Qwen3Config(num_key_value_heads=2, **SIZES),
    # Inside its window: past it, Gemma2's sliding layers would see less than the packed mask.
    "gemma2": lambda: Gemma2Config(num_key_value_heads=2, sliding_window=128, **SIZES),
}
# Eager attention takes its softmax in float32 whatever the model's dtype; SDPA stays in float64.
PRECISIONS = {
    "float32-eager": (torch.float32, "eager", 1e-4),
    "float32-sdpa": (torch.float32, "sdpa", 1e-4),
    "float64-sdpa": (torch.float64, "sdpa", 1e-6),
}

RESPONSES = [(11, 12, 13, 14, 15, 16, 17, 18, 19), (21, 22), (31, 32, 33, 34, 35)]
PROMPTS = [(1, 40, 41), (1, 42, 43, 44, 45, 46, 47), (1, 48)]
CUTS = [(1, 2, 5, 9), (1, 2), (5, 3, 3, 1, 200)]  # any order, repeated, past the end


def classifier(name: str, dtype: torch.dtype = torch.float64, attention: str = "sdpa"):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    return model.to(dtype).eval()


def separate(model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    """The model's own classification of one text, alone: it reads the last token."""
    logits: Tensor = model(input_ids=torch.tensor([text])).logits
    return logits[0, 0]


def oracle(model: PreTrainedModel, closing: tuple[int, ...]) -> list[list[float]]:
    with torch.no_grad():
        return [
            [float(separate(model, x + y[:t] + closing)) for t in cuts]
            for x, y, cuts in zip(PROMPTS, RESPONSES, CUTS, strict=True)
        ]


def packed(model: PreTrainedModel, closing: tuple[int, ...], pad_id: int) -> list[list[float]]:
    rows = [
        prefix_row(x, y, cuts, closing) for x, y, cuts in zip(PROMPTS, RESPONSES, CUTS, strict=True)
    ]
    batch = pack(rows, pad_id)
    with torch.no_grad():
        scores = packed_scores(model, batch)
    assert batch.score_mask.sum(1).tolist() == [len(cuts) for cuts in CUTS]
    return [row[mask].tolist() for row, mask in zip(scores, batch.score_mask, strict=True)]


def assert_equal(found: list[list[float]], expected: list[list[float]], tolerance: float) -> None:
    flat = torch.tensor([score for row in expected for score in row], dtype=torch.float64)
    assert flat.std() > 0.05, "scores that hardly differ would show nothing"
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("closing", [(), (EOS,), TWO_TOKENS], ids=["open", "closed", "two"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_scores_equal_separate_forwards(
    name: str, precision: str, closing: tuple[int, ...]
) -> None:
    dtype, attention, tolerance = PRECISIONS[precision]
    model = classifier(name, dtype, attention)
    assert_equal(packed(model, closing, EOS), oracle(model, closing), tolerance)


@pytest.mark.parametrize("pad_id", [0, EOS, 11, 59])
def test_no_pad_id_changes_a_score(pad_id: int) -> None:
    """Not even the end token, nor one that the text itself holds."""
    model = classifier("llama-grouped")
    assert_equal(packed(model, (EOS,), pad_id), oracle(model, (EOS,)), 1e-6)


def test_a_score_does_not_depend_on_the_other_rows_of_its_batch() -> None:
    model = classifier("llama")
    row = prefix_row(PROMPTS[1], RESPONSES[1], CUTS[1], (EOS,))
    alone = packed_scores(model, pack([row], EOS))[0]
    beside = packed_scores(model, pack([prefix_row(PROMPTS[0], RESPONSES[0], CUTS[0], ()), row], 0))
    assert beside[1, : len(CUTS[1])].tolist() == pytest.approx(alone.tolist(), abs=1e-9)


def test_candidate_chunks_of_one_prefix_are_scored_as_if_each_stood_alone() -> None:
    model = classifier("llama-grouped")
    trunk = PROMPTS[0] + RESPONSES[0]
    chunks = [(51, 52, 53), (), (54,), (51, 52, 53, 55)]
    inside = (Branch(5, (51, EOS)), Branch(5), Branch(len(trunk)))
    branches = (*(Branch(len(trunk), (*chunk, EOS)) for chunk in chunks), *inside)
    rows = [PackedRow(trunk, branches), PackedRow(PROMPTS[2], (Branch(2, (50, EOS)),))]
    expected = [
        [separate(model, trunk[: b.attach] + b.token_ids).item() for b in branches],
        [separate(model, (*PROMPTS[2], 50, EOS)).item()],
    ]
    with torch.no_grad():
        scores = packed_scores(model, pack(rows, EOS))
    found = [scores[i, : len(row.branches)].tolist() for i, row in enumerate(rows)]
    assert_equal(found, expected, 1e-6)
    assert rows[0].tokens == len(trunk) + 4 + 1 + 2 + 5 + 2


def test_a_cut_past_the_end_is_the_whole_response() -> None:
    assert prefix_row((1, 2), (3, 4, 5), (3, 99), (EOS,)).branches == (
        Branch(5, (EOS,)),
        Branch(5, (EOS,)),
    )


def test_positions_go_on_from_the_cut_and_a_branch_sees_no_later_token() -> None:
    batch = pack([prefix_row((1, 2), (3, 4), (1,), (8, 9))], pad_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 4]]
    assert batch.visible[0, 4].tolist() == [True, True, True, False, True, False]
    assert batch.visible[0, 5].tolist() == [True, True, True, False, True, True]
    assert batch.visible[0, 3].tolist() == [True, True, True, True, False, False]
    assert batch.score_index.tolist() == [[5]]


PAIRS = [
    PairExample((1, 40, 41), (11, 12, 13, 14), (11, 15), (1, 2, 4), (1, 2, 4), (0.0, 1.5, 8.0)),
    PairExample((1, 42), (21,), (22, 23, 24, 25, 26), (5,), (3,), (2.25,)),
]


@pytest.mark.parametrize("closing", [(), (EOS,), TWO_TOKENS], ids=["open", "closed", "two"])
def test_the_gradient_of_the_packed_pair_loss_is_that_of_separate_forwards(
    closing: tuple[int, ...],
) -> None:
    model = classifier("llama-grouped")
    loss, right = pair_loss(model, PAIRS, closing, EOS, "cpu")
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()

    slow, ordered = torch.zeros((), dtype=torch.float64), 0
    for row in PAIRS:
        for c, r, w in zip(row.chosen_cuts, row.rejected_cuts, row.weights, strict=True):
            gap = separate(model, row.prompt_ids + row.chosen_ids[:c] + closing)
            gap = gap - separate(model, row.prompt_ids + row.rejected_ids[:r] + closing)
            slow = slow - w * logsigmoid(gap)
            ordered += int(gap > 0)
    slow.backward()
    assert float(loss.detach()) == pytest.approx(float(slow.detach()), rel=1e-9)
    assert right == ordered
    largest = 0.0
    # transformers' RMS norm is computed in float32 whatever the dtype, hence no closer.
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-5, msg=name)
        largest = max(largest, float(value.grad.abs().max()))
    assert largest > 0.01
