"""A pool of actors of one kind and the router that distributes requests among them.

A request goes to the actor that caches the keys and values of its prompt unless that actor is much
busier than the others; then it goes to the least loaded one. Ray restarts actors and retries calls.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from ray.actor import ActorHandle
from ray.exceptions import RayActorError

SLACK = 1.25  # most load of an actor that caches the prompts, as a multiple of the fair share
ROUTES_KEPT = 65_536  # prompts whose actors the router remembers
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class PoolIsDead(RuntimeError):
    """No actor of a pool is alive; the message names the pool and why the last actor ended."""


class Router:
    """Map from prompts to the actors that cache them.

    Args:
        actors: number of actors.
    """

    def __init__(self, actors: int) -> None:
        self._alive = list(range(actors))
        self._routes: OrderedDict[Hashable, int] = OrderedDict()

    @property
    def alive(self) -> int:
        """Number of actors that are alive."""
        return len(self._alive)

    def remove(self, actor: int) -> None:
        """Remove a dead actor; its prompts may go to any other actor."""
        if actor in self._alive:
            self._alive.remove(actor)
        self._routes = OrderedDict((k, a) for k, a in self._routes.items() if a != actor)

    def route(self, keys: Sequence[Hashable], weights: Sequence[float]) -> dict[int, list[int]]:
        """Return the indices of the items of each actor, ascending.

        Items with the same key (one prompt) go to the same actor. If there are fewer prompts than
        actors, items are distributed individually, because using all cores saves more time than
        computing a prefix only once.

        Args:
            keys: the key of each item.
            weights: the expected work of each item, in any unit.
        """
        groups: dict[Hashable, list[int]] = {}
        for i, key in enumerate(keys):
            groups.setdefault(key, []).append(i)
        if len(groups) < self.alive:
            groups = {(key, i): [i] for i, key in enumerate(keys)}
        weight = {key: sum(weights[i] for i in group) for key, group in groups.items()}
        limit = SLACK * sum(weight.values()) / self.alive
        loads = dict.fromkeys(self._alive, 0.0)
        unrouted = []
        for key in groups:
            actor = self._routes.get(key)
            if actor is not None and loads[actor] + weight[key] <= limit:
                loads[actor] += weight[key]
            else:
                unrouted.append(key)
        for key in sorted(unrouted, key=lambda key: -weight[key]):  # stable for equal weights
            actor = min(loads, key=lambda actor: loads[actor])
            self._routes[key] = actor
            loads[actor] += weight[key]
        batches: dict[int, list[int]] = {}
        for key, group in groups.items():
            self._routes.move_to_end(key)
            batches.setdefault(self._routes[key], []).extend(group)
        while len(self._routes) > ROUTES_KEPT:
            self._routes.popitem(last=False)
        return {actor: sorted(batch) for actor, batch in sorted(batches.items())}


class Pool:
    """Actors that are replicas of each other.

    Args:
        name: the name in errors, e.g. "policy".
        actors: handles of Ray actors.
    """

    def __init__(self, name: str, actors: Sequence[ActorHandle]) -> None:
        self._name, self._actors = name, list(actors)
        self._router = Router(len(self._actors))

    async def map(
        self,
        items: Sequence[Item],
        keys: Sequence[Hashable],
        weights: Sequence[float],
        call: Callable[[ActorHandle, list[Item]], Awaitable[Sequence[Answer]]],
    ) -> list[Answer]:
        """Return the answer to each item, in the order of the items.

        The items of an actor that is dead (after Ray's restarts) are sent to the other actors.

        Args:
            items: the requests.
            keys: the key of each item; see ``Router.route``.
            weights: the expected work of each item.
            call: sends a batch of items to an actor and returns one answer for each.

        Raises:
            PoolIsDead: no actor is alive.
        """
        answers: dict[int, Answer] = {}
        pending = list(range(len(items)))
        while pending:
            routed = self._router.route([keys[i] for i in pending], [weights[i] for i in pending])
            batches = {actor: [pending[k] for k in batch] for actor, batch in routed.items()}
            results = await asyncio.gather(
                *(call(self._actors[a], [items[i] for i in b]) for a, b in batches.items()),
                return_exceptions=True,
            )
            pending = []
            for (actor, batch), result in zip(batches.items(), results, strict=True):
                if isinstance(result, RayActorError):
                    self._remove(actor, result)
                    pending += batch
                elif isinstance(result, BaseException):
                    raise result
                else:
                    answers.update(zip(batch, result, strict=True))
            pending.sort()
        return [answers[i] for i in range(len(items))]

    def _remove(self, actor: int, error: RayActorError) -> None:
        self._router.remove(actor)
        if not self._router.alive:
            raise PoolIsDead(
                f"all {len(self._actors)} {self._name} actors are dead; the last error: {error}"
            ) from error
