"""Bisection of failing batches, so that one bad request does not fail the others.

A request that also fails in a batch of one gets a PromptFailed. Other errors are raised unchanged.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from orchestrator.engines.huggingface.policy import PolicyLogitsAreNaN
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.search.engines import SequenceDoesNotFit
from orchestrator.search.problem import NOT_A_NUMBER, PromptFailed

NO_LOGITS = "the policy's logits are NaN"
NO_MEMORY = "out of memory, even in a batch of one request"
NO_ROOM = "prompt and response do not fit in the context of a model"
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # occurs in torch's error message for lack of CPU memory
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def answer_bisecting(
    answer: Callable[[list[Request]], Sequence[Answer]],
    requests: Sequence[Request],
    clear_cache: Callable[[], None],
) -> list[Answer | PromptFailed]:
    """Answer a batch; bisect it if it fails.

    A request that fails in a batch of one gets a PromptFailed.

    Args:
        answer: returns answer i for request i.
        requests: the batch.
        clear_cache: clears the engine's caches, which a failed batch may have corrupted.

    Raises:
        Exception: an error that is not due to a request.
    """
    try:
        return list(answer(list(requests)))
    except Exception as error:
        reason = failure_reason(error)
        if reason is None:
            raise
    clear_cache()
    if len(requests) == 1:
        return [PromptFailed(reason)]
    half = len(requests) // 2
    return [result for part in (requests[:half], requests[half:])
            for result in answer_bisecting(answer, part, clear_cache)]  # fmt: skip


def failure_reason(error: Exception) -> str | None:
    """Return the reason if an error may be due to one request of a batch, else None."""
    if isinstance(error, RewardIsNotFinite):
        return NOT_A_NUMBER
    if isinstance(error, PolicyLogitsAreNaN):
        return NO_LOGITS
    if isinstance(error, SequenceDoesNotFit):
        return NO_ROOM
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in str(error):
        return NO_MEMORY
    return None
