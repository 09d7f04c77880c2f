"""The interface of policies with continuous batching: requests join and finish at any step."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.search.engines import Sampled, SampleRequest


class ContinuousPolicy(Protocol):
    """A policy whose new requests join the running batch and which returns each when it is done."""

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Enqueue requests; return their ids."""

    def step(self) -> dict[int, Sampled]:
        """Advance all running requests; return the finished ones by id."""

    def abort(self) -> None:
        """Drop all unfinished requests."""


def sample_all(policy: ContinuousPolicy, requests: Sequence[SampleRequest]) -> list[Sampled]:
    """Sample requests to their ends. No others may run; after an error none are left running."""
    done: dict[int, Sampled] = {}
    try:
        ids = policy.add(requests)
        while len(done) < len(ids):
            done.update(policy.step())
    except BaseException:
        policy.abort()
        raise
    return [done[request_id] for request_id in ids]
