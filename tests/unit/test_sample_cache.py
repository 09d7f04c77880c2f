"""The cache of samples against transformers' own, which repeats and concatenates."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from orchestrator.engines.kv_cache.attention import RowGroups, Segments
from orchestrator.engines.kv_cache.sample_cache import SPARE_COLUMNS, SampleLayer

HEADS, SIZE = 2, 4
PREFIXES = (torch.randn(2, HEADS, 3, SIZE), torch.randn(2, HEADS, 3, SIZE))
INDEX = torch.tensor([0, 0, 1])


def new(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, HEADS, tokens, SIZE), torch.randn(rows, HEADS, tokens, SIZE)


def test_it_holds_what_concatenation_would_hold() -> None:
    torch.manual_seed(0)
    layer, theirs = SampleLayer(segmented=False), DynamicLayer()
    layer.prefixes = [PREFIXES]
    layer.set_groups([RowGroups(INDEX, 2)], len(INDEX))
    theirs.update(*(part[INDEX] for part in PREFIXES))
    index = INDEX
    steps: list[int | list[int]] = [1, 1, [2, 0], *[1] * (SPARE_COLUMNS + 3), [1], 4, 1]
    for step in steps:
        if isinstance(step, list):
            rows = torch.tensor(step)
            index = index[rows]
            layer.select(rows, 0)
            layer.set_groups([RowGroups(index, 2)], len(index))
            theirs.batch_select_indices(rows)
            continue
        states = new(len(index), step)
        found, expected = layer.update(*states), theirs.update(*states)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))  # type: ignore[arg-type]
        assert layer.get_seq_length() == theirs.get_seq_length()


def test_neither_prefixes_nor_tokens_are_copied() -> None:
    layer = SampleLayer(segmented=True)
    layer.prefixes = [PREFIXES]
    layer.set_groups([RowGroups(INDEX, 2)], len(INDEX))
    first, _ = layer.update(*new(3, 1))
    second, _ = layer.update(*new(3, 1))
    assert isinstance(first, Segments) and isinstance(second, Segments)
    assert first.segments[0].states is second.segments[0].states is PREFIXES[0]
    assert first.segments[1].states.data_ptr() == second.segments[1].states.data_ptr()
    assert torch.equal(second.segments[1].states[:, :, :1], first.segments[1].states)
