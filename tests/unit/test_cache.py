"""The growing key/value cache against transformers' own, which concatenates."""

import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.cache import ROOM, GrowingLayer, growing_cache


def feed(layer: DynamicLayer, steps: list[int | list[int]]) -> list[torch.Tensor]:
    """Keys after each step: an int adds that many tokens, a list selects rows."""
    generator = torch.Generator().manual_seed(0)
    rows, seen = 3, []
    for step in steps:
        if isinstance(step, list):
            layer.batch_select_indices(torch.tensor(step))
            rows = len(step)
        else:
            new = torch.randn(2, rows, 4, step, 8, generator=generator)
            keys, values = layer.update(new[0], new[1])
            assert keys.shape == values.shape
            seen += [keys.clone(), values.clone()]
    return seen


def test_it_holds_what_concatenation_would_hold() -> None:
    steps: list[int | list[int]] = [5, 1, 1, [2, 0, 0, 1], *[1] * (ROOM + 3), [3, 1], 7, 1]
    ours, theirs = feed(GrowingLayer(), steps), feed(DynamicLayer(), steps)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_token_is_written_in_place() -> None:
    layer = GrowingLayer()
    first, _ = layer.update(torch.ones(1, 1, 5, 2), torch.ones(1, 1, 5, 2))
    second, _ = layer.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    assert second.shape[-2] == 6
    assert first.data_ptr() == second.data_ptr(), "the prefix was copied"


def test_rows_kept_after_a_selection_do_not_write_into_the_old_storage() -> None:
    layer = GrowingLayer()
    before, _ = layer.update(torch.ones(2, 1, 3, 2), torch.ones(2, 1, 3, 2))
    layer.batch_select_indices(torch.tensor([0, 0]))
    after, _ = layer.update(torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2))
    assert torch.equal(before, torch.ones(2, 1, 3, 2))
    assert after.shape == (2, 1, 4, 2)


def test_layers_with_a_sliding_window_stay_as_they_are() -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    plain = growing_cache(LlamaConfig(**small))
    sliding = growing_cache(MistralConfig(**small, num_key_value_heads=2, sliding_window=8))
    assert all(isinstance(layer, GrowingLayer) for layer in plain.layers)
    assert not any(isinstance(layer, GrowingLayer) for layer in sliding.layers)
