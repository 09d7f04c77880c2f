"""Actors that hang: found by asking them, and ended, so that Ray starts them again."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True)
class Health:
    """An actor is asked for its process every ``every`` seconds once it has loaded its engines.

    One that does not answer within ``limit`` seconds hangs: its process is ended, and Ray starts it
    again. Engines compute in a thread, so that a long batch is no hang.
    """

    every: float = 20.0
    limit: float = 60.0


async def watch(actor: Any, health: Health, said: Callable[[str], None] | None) -> None:
    """Ends an actor's process whenever it hangs, until the actor is gone for good."""
    while True:
        try:
            node, process = await actor.process.remote()  # waits for engines that are loading
        except RayActorError:
            return
        await asyncio.sleep(health.every)
        # Not asked again of an actor that Ray starts anew: loading may take longer than the limit.
        ping = _answer(actor.process.options(max_task_retries=0).remote())
        try:
            await asyncio.wait_for(ping, health.limit)
        except RayActorError:
            continue
        except TimeoutError:
            if said is not None:
                said(f"a search actor (process {process}) did not answer for {health.limit:g} s:"
                     " it is started again")  # fmt: skip
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            with contextlib.suppress(RayError):  # it has ended by itself
                await _ending.options(scheduling_strategy=there).remote(process)


async def _answer(reference: Any) -> Any:
    return await reference


def _end_process(number: int) -> None:
    """Runs on the process's own node."""
    os.kill(number, signal.SIGKILL)


_ending = ray.remote(num_cpus=0, max_retries=0)(_end_process)
