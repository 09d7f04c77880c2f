"""A request's own fault is its own: a batch that fails is asked again in halves.

What fails alone gets a PromptFailed for an answer. Faults of another kind are raised as they are.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from orchestrator.checkpoints.checkpoint import TextDoesNotFit
from orchestrator.engines.huggingface.policy import PolicyIsNotFinite
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.search.problem import NOT_A_NUMBER, PromptFailed

NO_LOGITS = "the policy's logits are NaN"
NO_MEMORY = "its request does not fit the memory"
NO_ROOM = "its text is longer than the engine reads"
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # how torch names who had no memory on a CPU
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def each_apart(
    answer: Callable[[list[Request]], Sequence[Answer]],
    requests: Sequence[Request],
    forget: Callable[[], None],
) -> list[Answer | PromptFailed]:
    """Answers of a batch; a request that cannot be answered even alone gets its fault instead.

    Args:
        answer: gives answer i to request i.
        requests: the batch.
        forget: drops what the engine keeps between batches, which a failed one may have spoiled.
    """
    try:
        return list(answer(list(requests)))
    except Exception as error:
        reason = own_fault(error)
        if reason is None:
            raise
    forget()
    if len(requests) == 1:
        return [PromptFailed(reason)]
    half = len(requests) // 2
    return [part for some in (requests[:half], requests[half:])
            for part in each_apart(answer, some, forget)]  # fmt: skip


def own_fault(error: Exception) -> str | None:
    """The reason, where an error may be the fault of one request of a batch."""
    if isinstance(error, RewardIsNotFinite):
        return NOT_A_NUMBER
    if isinstance(error, PolicyIsNotFinite):
        return NO_LOGITS
    if isinstance(error, TextDoesNotFit):
        return NO_ROOM
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in str(error):
        return NO_MEMORY
    return None
