"""Packed prefix scores against separate forwards, the slow oracle that defines them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from conftest import FLOAT32_INSIDE
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.examples import PairExample
from orchestrator.objectives.objective import LossContext
from orchestrator.rewards import one_pass
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import (
    Branch,
    PackedRow,
    branch_tokens,
    joined,
    prefix_row,
    trunk_tokens,
    visible,
)

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
    "gemma2": lambda: Gemma2Config(num_key_value_heads=2, **SIZES),
}
SLIDING: dict[str, Callable[[], PreTrainedConfig]] = {
    "mistral": lambda: MistralConfig(num_key_value_heads=2, sliding_window=4, **SIZES),
    "gemma2": lambda: Gemma2Config(num_key_value_heads=2, sliding_window=4, **SIZES),
    "qwen2": lambda: Qwen2Config(
        num_key_value_heads=2, sliding_window=4, use_sliding_window=True, max_window_layers=1,
        **SIZES,
    ),
}  # fmt: skip
# Eager attention takes its softmax in float32 whatever the model's dtype; SDPA stays in float64.
PRECISIONS = {
    "float32-eager": (torch.float32, "eager", 1e-4),
    "float32-sdpa": (torch.float32, "sdpa", 1e-4),
    "float64-sdpa": (torch.float64, "sdpa", FLOAT32_INSIDE),
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
        prefix_row(x, [y], [cuts], closing)
        for x, y, cuts in zip(PROMPTS, RESPONSES, CUTS, strict=True)
    ]
    return scores_of(model, rows, pad_id)


def scores_of(
    model: PreTrainedModel, rows: Sequence[PackedRow], pad_id: int = EOS
) -> list[list[float]]:
    with torch.no_grad():
        scores = packed_scores(model, rows, pad_id)
    return [own[: len(row.branches)].tolist() for own, row in zip(scores, rows, strict=True)]


@pytest.fixture(params=["one forward", "chunks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of computing branches: in the trunk's forward, and in chunks over its cache."""
    if request.param == "chunks":
        monkeypatch.setattr(one_pass, "ONE_FORWARD", 0)
        monkeypatch.setattr(one_pass, "CHUNK", 3)
    return str(request.param)


def assert_equal(found: list[list[float]], expected: list[list[float]], tolerance: float) -> None:
    flat = torch.tensor([score for row in expected for score in row], dtype=torch.float64)
    assert flat.std() > 0.05, "scores that hardly differ would show nothing"
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize("closing", [(), (EOS,), TWO_TOKENS], ids=["open", "closed", "two"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.usefixtures("way")
def test_packed_scores_equal_separate_forwards(
    name: str, precision: str, closing: tuple[int, ...]
) -> None:
    dtype, attention, tolerance = PRECISIONS[precision]
    model = classifier(name, dtype, attention)
    assert_equal(packed(model, closing, EOS), oracle(model, closing), tolerance)


@pytest.mark.parametrize("pad_id", [0, EOS, 11, 59])
@pytest.mark.usefixtures("way")
def test_no_pad_id_changes_a_score(pad_id: int) -> None:
    """Not even the end token, nor one that the text itself holds."""
    model = classifier("llama-grouped")
    assert_equal(packed(model, (EOS,), pad_id), oracle(model, (EOS,)), FLOAT32_INSIDE)


@pytest.mark.usefixtures("way")
def test_a_score_does_not_depend_on_the_other_rows_of_its_batch() -> None:
    model = classifier("llama")
    row = prefix_row(PROMPTS[1], [RESPONSES[1]], [CUTS[1]], (EOS,))
    (alone,) = scores_of(model, [row])
    _, beside = scores_of(model, [prefix_row(PROMPTS[0], [RESPONSES[0]], [CUTS[0]], ()), row])
    assert beside == pytest.approx(alone, abs=FLOAT32_INSIDE)


@pytest.mark.usefixtures("way")
def test_candidate_chunks_of_one_prefix_are_scored_as_if_each_stood_alone() -> None:
    model = classifier("llama-grouped")
    prompt, response = PROMPTS[0], RESPONSES[0]
    chunks = [(51, 52, 53), (), (54,), (51, 52, 53, 55)]
    inside = (Branch(2, (51, EOS)), Branch(2), Branch(len(response)), Branch(0), Branch(0, (EOS,)))
    own = (*(Branch(len(response), (*chunk, EOS)) for chunk in chunks), *inside)
    rows = [
        PackedRow(prompt, (response,), own),
        PackedRow(PROMPTS[2], ((),), (Branch(0, (50, EOS)),)),
    ]
    expected = [
        [separate(model, prompt + response[: b.attach] + b.token_ids).item() for b in own],
        [separate(model, (*PROMPTS[2], 50, EOS)).item()],
    ]
    assert_equal(scores_of(model, rows), expected, FLOAT32_INSIDE)
    assert rows[0].tokens == len(prompt + response) + 4 + 1 + 2 + 5 + 2 + 1


@pytest.mark.parametrize("closing", [(), (EOS,), TWO_TOKENS], ids=["open", "closed", "two"])
@pytest.mark.usefixtures("way")
def test_responses_that_share_a_prompt_do_not_see_each_other(closing: tuple[int, ...]) -> None:
    model = classifier("llama-grouped")
    rows = [
        prefix_row(PROMPTS[0], RESPONSES, CUTS, closing),
        prefix_row(PROMPTS[1], RESPONSES[1:], CUTS[1:], closing),
    ]
    expected = [
        [
            float(separate(model, prompt + response[:t] + closing).detach())
            for response, cuts in list(zip(RESPONSES, CUTS, strict=True))[first:]
            for t in cuts
        ]
        for first, prompt in ((0, PROMPTS[0]), (1, PROMPTS[1]))
    ]
    assert_equal(scores_of(model, rows), expected, FLOAT32_INSIDE)


@pytest.mark.parametrize("token_ids", [(), (EOS,)], ids=["open", "closed"])
@pytest.mark.usefixtures("way")
def test_the_empty_prefix_of_several_responses_is_the_prompt(token_ids: tuple[int, ...]) -> None:
    model = classifier("llama-grouped")
    pair = (RESPONSES[0], RESPONSES[1])
    own = (Branch(0, token_ids, 1), Branch(3, token_ids, 0), Branch(0, token_ids, 0))
    texts = [PROMPTS[0], PROMPTS[0] + RESPONSES[0][:3], PROMPTS[0]]
    expected = [float(separate(model, text + token_ids).detach()) for text in texts]
    assert_equal(scores_of(model, [PackedRow(PROMPTS[0], pair, own)]), [expected], FLOAT32_INSIDE)


@pytest.mark.parametrize("name", SLIDING)
@pytest.mark.usefixtures("way")
def test_a_sliding_window_shorter_than_the_text_is_kept(name: str) -> None:
    """Of every layer (Mistral), or of some (Gemma2, Qwen2)."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(
        SLIDING[name](), attn_implementation="sdpa"
    ).eval()
    model = model.to(torch.float64)
    expected = oracle(model, TWO_TOKENS)
    assert_equal(packed(model, TWO_TOKENS, EOS), expected, FLOAT32_INSIDE)


@pytest.mark.parametrize("memory", [0, 1, 256])
def test_no_bound_on_the_branches_memory_changes_a_score(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "ONE_FORWARD", 0)
    model = classifier("llama-grouped")
    rows = [prefix_row(PROMPTS[0], [RESPONSES[0]], [range(1, 10)], TWO_TOKENS)]
    with torch.no_grad():
        found = packed_scores(model, rows, EOS, memory)[0].tolist()
    expected = [
        float(separate(model, PROMPTS[0] + RESPONSES[0][:t] + TWO_TOKENS).detach())
        for t in range(1, 10)
    ]
    assert_equal([found], [expected], FLOAT32_INSIDE)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForCausalLM, AutoModelForTokenClassification])
@pytest.mark.parametrize("closing", [(), (EOS,)], ids=["open", "closed"])
@pytest.mark.usefixtures("way")
def test_a_head_of_the_callers_reads_any_model_on_a_causal_backbone(
    kind: Any, closing: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = kind.from_config(ARCHITECTURES["llama-grouped"](), attn_implementation="sdpa")
    model = model.to(torch.float64).eval()
    shapes: list[tuple[int, ...]] = []

    def head(hidden: Tensor) -> Tensor:
        shapes.append(tuple(hidden.shape))
        return hidden[..., 3] - hidden[..., 5] ** 2

    rows = [
        prefix_row(x, [y], [cuts], closing)
        for x, y, cuts in zip(PROMPTS, RESPONSES, CUTS, strict=True)
    ]
    with torch.no_grad():
        scores = packed_scores(model, rows, EOS, head=head)
        expected = [
            [
                head(model.base_model(torch.tensor([x + y[:t] + closing])).last_hidden_state)[0, -1]
                for t in cuts
            ]
            for x, y, cuts in zip(PROMPTS, RESPONSES, CUTS, strict=True)
        ]
    assert all(len(shape) == 3 and shape[2] == SIZES["hidden_size"] for shape in shapes)
    found = [own[: len(wanted)].tolist() for own, wanted in zip(scores, expected, strict=True)]
    assert_equal(found, [[float(v) for v in row] for row in expected], FLOAT32_INSIDE)


@pytest.mark.parametrize("kinds", [["linear_attention"], ["full_attention", "chunked_attention"]])
def test_layers_that_a_mask_does_not_decide_are_refused(kinds: list[str]) -> None:
    model = classifier("qwen2")
    model.config.layer_types = kinds
    with pytest.raises(ValueError, match=rf"qwen2: layers of kind {kinds[-1]} cannot be packed"):
        packed(model, (EOS,), EOS)


def test_a_cut_past_the_end_is_the_whole_response() -> None:
    assert prefix_row((1, 2), [(3, 4, 5)], [(3, 99)], (EOS,)).branches == (
        Branch(3, (EOS,)),
        Branch(3, (EOS,)),
    )


def test_positions_go_on_from_the_cut_and_a_branch_sees_no_later_token() -> None:
    rows = [prefix_row((1, 2), [(3, 4)], [(1, 2)], (8, 9))]
    trunk = trunk_tokens([(1, 2, 3, 4)], [0], 0)
    tokens = joined(trunk, branch_tokens(rows, [[0, 1]], 0))
    assert tokens.ids.tolist() == [[1, 2, 3, 4, 8, 9, 8, 9]]
    assert tokens.position.tolist() == [[0, 1, 2, 3, 3, 4, 4, 5]]
    seen = ["".join("x" if s else "." for s in row) for row in visible(tokens, tokens)[0].tolist()]
    assert seen == [
        "x.......",
        "xx......",
        "xxx.....",
        "xxxx....",
        "xxx.x...",
        "xxx.xx..",
        "xxxx..x.",
        "xxxx..xx",
    ]


PAIRS = [
    PairExample((1, 40, 41), (11, 12, 13, 14), (11, 15), (1, 2, 4), (1, 2, 4), (0.0, 1.5, 8.0)),
    PairExample((1, 42), (21,), (22, 23, 24, 25, 26), (5,), (3,), (2.25,)),
]


@pytest.mark.parametrize("closing", [(), (EOS,), TWO_TOKENS], ids=["open", "closed", "two"])
@pytest.mark.usefixtures("way")
def test_the_gradient_of_the_packed_pair_loss_is_that_of_separate_forwards(
    closing: tuple[int, ...],
) -> None:
    model = classifier("llama-grouped")
    loss, right = BradleyTerry.loss(LossContext(model, EOS, closing), PAIRS)
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
    assert float(loss.detach()) == pytest.approx(float(slow.detach()), rel=FLOAT32_INSIDE)
    assert right == ordered
    largest = 0.0
    # transformers' RMS norm is computed in float32 whatever the dtype, hence no closer.
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-5, msg=name)
        largest = max(largest, float(value.grad.abs().max()))
    assert largest > 0.01
