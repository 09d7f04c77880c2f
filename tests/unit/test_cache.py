"""The cache of samples against transformers' own, which repeats and concatenates."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import Groups, Parts
from orchestrator.engines.kv_cache.sample_cache import ROOM, SamplesLayer

HEADS, SIZE = 2, 4
BEFORE = (torch.randn(2, HEADS, 3, SIZE), torch.randn(2, HEADS, 3, SIZE))
INDEX = torch.tensor([0, 0, 1])


def new(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, HEADS, tokens, SIZE), torch.randn(rows, HEADS, tokens, SIZE)


def test_it_holds_what_concatenation_would_hold() -> None:
    torch.manual_seed(0)
    layer, theirs = SamplesLayer(in_parts=False), DynamicLayer()
    layer.before = [BEFORE]
    layer.group([Groups(INDEX, 2)], len(INDEX))
    theirs.update(*(part[INDEX] for part in BEFORE))
    index = INDEX
    for step in [1, 1, [2, 0], *[1] * (ROOM + 3), [1], 4, 1]:
        if isinstance(step, list):
            rows = torch.tensor(step)
            index = index[rows]
            layer.take(rows, 0)
            layer.group([Groups(index, 2)], len(index))
            theirs.batch_select_indices(rows)
            continue
        states = new(len(index), step)
        found, expected = layer.update(*states), theirs.update(*states)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]
        assert layer.get_seq_length() == theirs.get_seq_length()


def test_neither_beginnings_nor_tokens_are_copied() -> None:
    layer = SamplesLayer(in_parts=True)
    layer.before = [BEFORE]
    layer.group([Groups(INDEX, 2)], len(INDEX))
    first, _ = layer.update(*new(3, 1))
    second, _ = layer.update(*new(3, 1))
    assert isinstance(first, Parts) and isinstance(second, Parts)
    assert first.parts[0].states is second.parts[0].states is BEFORE[0]
    assert first.parts[1].states.data_ptr() == second.parts[1].states.data_ptr()
    assert torch.equal(second.parts[1].states[:, :, :1], first.parts[1].states)
