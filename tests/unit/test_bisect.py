"""Whose fault a failing batch is."""

from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.decoding.bisect import NO_MEMORY, answer_bisecting
from orchestrator.decoding.decoder import Decoder
from orchestrator.engines.kv_cache import row_storage
from orchestrator.search.problem import PromptFailed


class Allocating:
    """Answers a request of n bytes by allocating them, all of a batch together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.forgotten = 0

    def answer(self, requests: list[int]) -> list[int]:
        self.batches.append(requests)
        torch.empty(sum(requests), dtype=torch.uint8)
        if -1 in requests:
            raise KeyError("a fault of the code")
        return [2 * n for n in requests]

    def clear_cache(self) -> None:
        self.forgotten += 1


def test_a_request_that_does_not_fit_the_memory_alone_fails_and_the_others_are_answered() -> None:
    engine = Allocating()
    found = answer_bisecting(engine.answer, [1, 2, 2**60, 3, 4], engine.clear_cache)
    assert [one for one in found if not isinstance(one, PromptFailed)] == [2, 4, 6, 8]
    assert str(found[2]) == NO_MEMORY and isinstance(found[2], PromptFailed)
    assert engine.batches[0] == [1, 2, 2**60, 3, 4] and [2**60] in engine.batches
    assert engine.forgotten == sum(2**60 in batch for batch in engine.batches)


def test_a_batch_that_fits_is_asked_once_and_faults_of_code_are_raised() -> None:
    engine = Allocating()
    assert answer_bisecting(engine.answer, [1, 2], engine.clear_cache) == [2, 4]
    assert answer_bisecting(engine.answer, [], engine.clear_cache) == []
    assert engine.batches == [[1, 2], []] and not engine.forgotten
    with pytest.raises(KeyError):
        answer_bisecting(engine.answer, [5, -1], engine.clear_cache)
    assert engine.batches[2:] == [[5, -1]]


def test_beams_that_do_not_fit_the_memory_fail_one_prompt_and_the_others_are_answered(
    word_policy: str, word_reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both engines themselves, where memory for keys and values runs out.

    All prompts at once do not fit, one of them not even alone.
    """
    short = [f"my {product} leaks ." for product in ("kettle", "router", "camera")]
    prompts = [short[0], " ".join(["my kettle leaks ."] * 20), *short[1:]]
    options: dict[str, Any] = {"beams": 3, "candidates": 2, "chunk": 4, "max_new_tokens": 12}

    def decoded() -> list[Any]:
        decoder = Decoder(word_policy, word_reward, dtype="float64")
        return decoder.decode(prompts, "cbs", **options)

    undisturbed = decoded()
    assert not any(one.failed for one in undisturbed)
    reallocated, failures = row_storage._reallocated, [0]

    def limited(part: Tensor, kept: list[int], count: int, columns: int) -> Tensor:
        if (
            count * columns > 20 * row_storage.ROW_GRANULARITY
            or columns > row_storage.ROW_GRANULARITY
        ):
            failures[0] += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more")
        return reallocated(part, kept, count, columns)

    monkeypatch.setattr(row_storage, "_reallocated", limited)
    found = decoded()
    assert failures[0] > 2
    assert [one.failed for one in found] == [None, NO_MEMORY, None, None]
    assert [one.text for one in found if not one.failed] == [
        one.text for one, other in zip(undisturbed, found, strict=True) if not other.failed
    ]
