"""A policy with continuous batching: requests join at any step, each is answered when done."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.search.engines import Sampled, SampleRequest


class Continuous(Protocol):
    """A policy whose requests join those under way and are answered one by one."""

    def add(self, requests: Sequence[SampleRequest]) -> list[int]:
        """Takes requests; their numbers."""

    def step(self) -> dict[int, Sampled]:
        """Goes on with all that is under way; the requests that are done, by their numbers."""

    def abort(self) -> None:
        """Drops all requests that are not done."""


def sampled(policy: Continuous, requests: Sequence[SampleRequest]) -> list[Sampled]:
    """Samples requests to their ends; nothing else may be under way, nothing is left so."""
    done: dict[int, Sampled] = {}
    try:
        numbers = policy.add(requests)
        while len(done) < len(numbers):
            done.update(policy.step())
    except BaseException:
        policy.abort()
        raise
    return [done[number] for number in numbers]
