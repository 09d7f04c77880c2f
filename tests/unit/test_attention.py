"""Attention over segments against attention over keys and values in one tensor."""

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForSequenceClassification,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from orchestrator.engines.kv_cache.attention import (
    NAME,
    RowGroups,
    Segment,
    Segments,
    attend,
    enable_segments,
)

HEADS, SHARED, SIZE = 4, 2, 8  # of queries, of keys and values, of a head
MODULE = nn.Identity()


def written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softcap: float | None
) -> Tensor:
    """Softmax attention, row by row and head by head."""
    found = torch.empty(query.shape[0], query.shape[2], HEADS, SIZE, dtype=query.dtype)
    for row in range(query.shape[0]):
        for head in range(HEADS):
            own = head // (HEADS // SHARED)
            logits = query[row, head] @ key[row, own].T * SIZE**-0.5
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            if mask is not None:
                logits = logits + mask[row, 0]
            found[row, :, head] = torch.softmax(logits, -1) @ value[row, own]
    return found


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("index", [None, [0, 0, 1, 1, 2, 2], [2, 0, 2, 2, 1, 0], [1] * 6])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_segments_equal_one_tensor(
    index: list[int] | None, width: int, softcap: float | None
) -> None:
    torch.manual_seed(0)
    rows, segment_rows = 6, 6 if index is None else 3
    groups = None if index is None else RowGroups(torch.tensor(index), segment_rows)
    before = [drawn(segment_rows, SHARED, 5, SIZE) for _ in range(2)]
    own = [drawn(rows, SHARED, 4, SIZE) for _ in range(2)]
    query = drawn(rows, HEADS, width, SIZE)
    mask = torch.zeros(rows, 1, width, 9, dtype=torch.float64)
    mask[1, :, :, :3] = mask[4, :, 0, 6:] = torch.finfo(torch.float64).min
    keys, values = (
        Segments((Segment(a, groups), Segment(b))) for a, b in zip(before, own, strict=True)
    )
    segmented, _ = attend(MODULE, query, keys, values, mask, softcap=softcap)
    expected = written_out(query, keys.concatenated(), values.concatenated(), mask, softcap)
    torch.testing.assert_close(segmented, expected, rtol=0, atol=1e-12)
    joined, _ = attend(
        MODULE, query, keys.concatenated(), values.concatenated(), mask, softcap=softcap
    )
    torch.testing.assert_close(joined, expected, rtol=0, atol=1e-12)


def test_concatenation_repeats_the_segment_row_of_each_query_row() -> None:
    shared, own = torch.arange(2.0).view(2, 1, 1, 1), torch.full((3, 1, 1, 1), 9.0)
    joined = Segments(
        (Segment(shared, RowGroups(torch.tensor([1, 0, 1]), 2)), Segment(own))
    ).concatenated()
    assert joined.flatten(1).tolist() == [[1.0, 9.0], [0.0, 9.0], [1.0, 9.0]]


SMALL = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_a_model_gives_what_it_gave_with_its_own_attention(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SMALL))
    else:
        config = Gemma2Config(**SMALL, head_dim=4, sliding_window=3, num_labels=1, pad_token_id=0)
        model = Gemma2ForSequenceClassification(config)
    model.eval()
    model.set_attn_implementation("eager")
    ids, mask = torch.randint(1, 20, (3, 7)), torch.ones(3, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    expected = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert enable_segments(model) and model.config._attn_implementation == NAME
    found = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask > 0], expected[mask > 0], rtol=0, atol=1e-5)


def test_a_model_with_attention_sinks_keeps_its_own() -> None:
    model = GptOssForCausalLM(
        GptOssConfig(**SMALL, head_dim=4, num_local_experts=2, num_experts_per_tok=1)
    )
    before = model.config._attn_implementation
    assert not enable_segments(model)
    assert model.config._attn_implementation == before
