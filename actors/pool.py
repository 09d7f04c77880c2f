"""A pool of actors of one kind, and its router. Restarts and retries are Ray's own.

An item goes to the actor that holds the keys and values of its prompt, if that is not much busier
than the others, else to the least loaded one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ray.exceptions import RayActorError

SLACK = 1.25  # of its fair share, what an actor gets at most because it holds the prompts
HELD = 65_536  # prompts whose actors are remembered


class PoolIsDead(RuntimeError):
    """No actor of a pool is left; the message says which pool, and why the last one ended."""


class Router:
    """Which of several actors holds which prompts.

    Args:
        actors: how many there are.
    """

    def __init__(self, actors: int) -> None:
        self._alive = list(range(actors))
        self._holders: OrderedDict[Hashable, int] = OrderedDict()

    @property
    def alive(self) -> int:
        """Actors that are left."""
        return len(self._alive)

    def lose(self, actor: int) -> None:
        """An actor is gone; what it held is anyone's."""
        if actor in self._alive:
            self._alive.remove(actor)
        self._holders = OrderedDict((k, a) for k, a in self._holders.items() if a != actor)

    def shares(self, keys: Sequence[Hashable], weights: Sequence[float]) -> dict[int, list[int]]:
        """Numbers of the items by actor, rising; items of one prompt (``keys``) stay together.

        Fewer prompts than actors are shared out item by item: all cores at work are worth more
        than a prefix that is read twice.
        """
        whole: dict[Hashable, list[int]] = {}
        for i, key in enumerate(keys):
            whole.setdefault(key, []).append(i)
        if len(whole) < self.alive:
            whole = {(key, i): [i] for i, key in enumerate(keys)}
        weight = {key: sum(weights[i] for i in own) for key, own in whole.items()}
        most = SLACK * sum(weight.values()) / self.alive
        loads = dict.fromkeys(self._alive, 0.0)
        homeless = []
        for key in whole:
            holder = self._holders.get(key)
            if holder is not None and loads[holder] + weight[key] <= most:
                loads[holder] += weight[key]
            else:
                homeless.append(key)
        for key in sorted(homeless, key=lambda key: -weight[key]):  # equal ones in their order
            holder = min(loads, key=lambda actor: loads[actor])
            self._holders[key] = holder
            loads[holder] += weight[key]
        found: dict[int, list[int]] = {}
        for key, own in whole.items():
            self._holders.move_to_end(key)
            found.setdefault(self._holders[key], []).extend(own)
        while len(self._holders) > HELD:
            self._holders.popitem(last=False)
        return {actor: sorted(own) for actor, own in sorted(found.items())}


class Pool:
    """Actors that all answer alike.

    Args:
        name: what its errors call it, e.g. "policy".
        actors: handles of Ray actors.
    """

    def __init__(self, name: str, actors: Sequence[Any]) -> None:
        self._name, self._actors = name, list(actors)
        self._router = Router(len(self._actors))

    async def ask(
        self,
        items: Sequence[Any],
        keys: Sequence[Hashable],
        weights: Sequence[float],
        call: Callable[[Any, list[Any]], Any],
    ) -> list[Any]:
        """The answers to all items, in their order; ``call(actor, share)`` asks for some of them.

        An actor that is gone for good (past Ray's restarts) leaves its share to the others.

        Raises:
            PoolIsDead: none is left.
        """
        answers: dict[int, Any] = {}
        todo = list(range(len(items)))
        while todo:
            shares = self._router.shares([keys[i] for i in todo], [weights[i] for i in todo])
            places = {actor: [todo[k] for k in own] for actor, own in shares.items()}
            found = await asyncio.gather(
                *(call(self._actors[a], [items[i] for i in own]) for a, own in places.items()),
                return_exceptions=True,
            )
            todo = []
            for (actor, own), answer in zip(places.items(), found, strict=True):
                if isinstance(answer, RayActorError):
                    self._lose(actor, answer)
                    todo += own
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    answers.update(zip(own, answer, strict=True))
            todo.sort()
        return [answers[i] for i in range(len(items))]

    def _lose(self, actor: int, why: RayActorError) -> None:
        self._router.lose(actor)
        if not self._router.alive:
            raise PoolIsDead(
                f"all {len(self._actors)} {self._name} actors are dead, the last one: {why}"
            ) from why
