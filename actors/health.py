"""Health checks of actors: a process that does not answer is ended, so that Ray restarts it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@dataclass(frozen=True)
class Health:
    """How actors are checked.

    Engines compute in a thread, so that an actor answers health checks during a long batch.

    Attributes:
        interval: seconds between two checks of an actor whose engines are loaded.
        timeout: seconds in which an actor must answer; after that its process is ended.
    """

    interval: float = 20.0
    timeout: float = 60.0


async def watch(actor: ActorHandle, health: Health, notify: Callable[[str], None] | None) -> None:
    """Check an actor until it is dead, and end its process whenever it does not answer.

    Args:
        actor: a handle of an actor with the method ``node_and_pid``.
        health: interval and timeout of the checks.
        notify: called with a sentence whenever a process is ended.
    """
    while True:
        try:
            node, process = await actor.node_and_pid.remote()  # waits for engines that are loading
        except RayActorError:
            return
        await asyncio.sleep(health.interval)
        # No retry: an actor that Ray has restarted may load for longer than the timeout.
        ping = _result(actor.node_and_pid.options(max_task_retries=0).remote())
        try:
            await asyncio.wait_for(ping, health.timeout)
        except RayActorError:
            continue
        except TimeoutError:
            if notify is not None:
                notify(
                    f"search actor (process {process}) did not answer a health check for"
                    f" {health.timeout:g} s; restarting it"
                )
            same_node = NodeAffinitySchedulingStrategy(node, soft=False)
            with contextlib.suppress(RayError):  # the process has ended in the meantime
                await _end_remote.options(scheduling_strategy=same_node).remote(process)


async def _result(reference: Awaitable[object]) -> object:
    return await reference


def _end_process(process: int) -> None:
    """End a process of this node."""
    os.kill(process, signal.SIGKILL)


_end_remote = ray.remote(num_cpus=0, max_retries=0)(_end_process)
