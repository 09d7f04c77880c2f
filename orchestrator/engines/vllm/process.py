"""vLLM in a separate process behind a pipe: the part that all vLLM engines share.

vLLM changes the process it runs in (torch's threads, the environment, process groups). The process
here ends with its parent, even if the parent is killed; vLLM's own engine processes would survive.
Sending a batch through the pipe takes one or two milliseconds.
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
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch._dynamo.config

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.checkpoint import TextDoesNotFit
from orchestrator.engines.vllm.install import INSTALL

if TYPE_CHECKING:
    from vllm import LLM

CACHE_MIB = {"cpu": 1_024, "cuda": 8_192}  # KV cache size; sequences that exceed it are rejected
GPU_MEMORY_UTILIZATION = 0.05  # checked at start: two engines share a GPU
BLOCK = {"cpu": 32, "cuda": 16}  # tokens of a cache block, the minimum: only full blocks are reused
TOKENS_PER_BATCH = 8192  # per forward pass; longer prompts are prefilled in chunks
SHUTDOWN_S = 2.0  # time for an idle engine to exit before it is killed
ROWS_NAMED = 20  # maximum number in an error message
SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are shared with other processes
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this is its own process already
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # version 2 has another interface for logits processors
    "VLLM_NO_USAGE_STATS": "1",
}


class Served(Protocol):
    """An engine in its process. ``max_length`` limits the tokens of a prompt and its output."""

    max_length: int

    @property
    def busy(self) -> bool:
        """Whether requests are in progress, which ``step`` advances between calls."""

    def step(self) -> Sequence[object]:
        """Advance the requests in progress; return the finished ones."""


def check_installed() -> None:
    """Check that vLLM is installed, without importing it.

    Raises:
        ModuleNotFoundError: it is not; the message says what to install.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError(INSTALL, name="vllm")


def check_served(checkpoint: str) -> None:
    """Check that vLLM can load a checkpoint.

    Raises:
        ValueError: it is an adapter, which is not merged for vLLM.
    """
    if (adapter := adapter_of(checkpoint)) is not None:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' loads full models, and this is an adapter of"
            f" {adapter.base}; valid: engine transformers, or a checkpoint with the adapter"
            " merged (PEFT: merge_and_unload, then save_pretrained)"
        )


class VllmProcess:
    """An engine in a separate process, with as many threads as torch has in this one.

    Args:
        checkpoint: folder or hub name.
        device: torch device name; vLLM is built for one kind of device.
        start: creates the engine there from the checkpoint, the kind of device and ``cache_mib``;
            must be picklable.
        cache_mib: memory of the KV cache (MiB); None: the default of the device.

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
        self._connection, child_connection = context.Pipe()
        kind, threads = torch.device(device).type, torch.get_num_threads()
        arguments = child_connection, threads, partial(start, checkpoint, kind, cache_mib)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        child_connection.close()  # so that the end of the process closes the pipe
        self._checkpoint, self._process = checkpoint, process
        # Runs once: by close(), at garbage collection, or at the interpreter's exit.
        self.close = weakref.finalize(self, _end, process, self._connection)
        self._done: deque[object] = deque()
        try:
            self._max_length = int(self._wait_for_answer())
        except RuntimeError:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the engine and return its result.

        Raises:
            RuntimeError: the call failed, or the process has ended.
        """
        self._send(method, arguments, True)
        return self._wait_for_answer()

    def post(self, method: str, *arguments: object) -> None:
        """Call a method without waiting; an error is raised by the next ``call`` or ``wait``."""
        self._send(method, arguments, False)

    def wait(self) -> list[Any]:
        """Wait until requests finish; return all that did since the last call.

        Raises:
            RuntimeError: as ``call``.
        """
        while not self._done:
            self._receive()
        finished = list(self._done)
        self._done.clear()
        return finished

    def check_fits(self, lengths: Sequence[Collection[int]]) -> None:
        """Check that all lengths (tokens) of each row are between 1 and the engine's limit.

        Raises:
            TextDoesNotFit: some are not; the error holds the indices of their rows.
        """
        bad = [
            i
            for i, row in enumerate(lengths)
            if row and not 0 < min(row) <= max(row) <= self._max_length
        ]
        if bad:
            longest = max(max(lengths[i]) for i in bad)
            raise TextDoesNotFit(
                f"{self._checkpoint}: rows {bad[:ROWS_NAMED]} (of {len(bad)}) do not fit engine"
                f" 'vllm': the longest has {longest} tokens; valid: 1 to {self._max_length} (the"
                " model's context, or less if the KV cache is smaller)",
                tuple(bad),
            )

    def _send(self, method: str, arguments: Sequence[object], answered: bool) -> None:
        if not self.close.alive:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine is closed")
        with contextlib.suppress(OSError):  # if the process has ended, the answer says so
            self._connection.send((method, arguments, answered))

    def _wait_for_answer(self) -> Any:
        """Return the answer to a call; requests that finish meanwhile are queued."""
        while (answer := self._receive()) is None:
            pass
        return answer[0]

    def _receive(self) -> tuple[object] | None:
        """Receive a message; return its answer, or None if it reports finished requests."""
        try:
            error_text, answer, done = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(SHUTDOWN_S)
            code = self._process.exitcode
            error_text, answer, done = f"its process ended (exit code {code})", None, []
        if error_text is not None:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine: {error_text}")
        self._done += done
        result: tuple[object] | None = answer
        return result


def language_model(
    checkpoint: str, device: str, cache_mib: int | None, **settings: object
) -> "LLM":
    """Create a vLLM engine in this process, with the settings that all engines share.

    Raises:
        ValueError: the installed vLLM is built for another kind of device.
    """
    if device == "cpu":  # eager models; what vLLM still compiles takes 17 s
        torch._dynamo.config.disable = True
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != device:
        raise ValueError(
            f"the installed vLLM computes on {current_platform.device_type}, not on {device};"
            " install the build for that device, or set the device to the installed one"
        )
    return LLM(
        checkpoint,
        load_format="safetensors",
        use_tqdm_on_load=False,
        max_model_len=-1,  # the model's context, or what fits the cache
        kv_cache_memory_bytes=(cache_mib or CACHE_MIB[device]) * 2**20,
        gpu_memory_utilization=GPU_MEMORY_UTILIZATION,
        block_size=BLOCK[device],
        max_num_batched_tokens=TOKENS_PER_BATCH,
        disable_log_stats=True,
        **settings,
    )


def _end(process: BaseProcess, connection: Connection) -> None:
    connection.close()  # an idle engine exits when the pipe closes
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
    """Run the engine's process: send its ``max_length``, then serve calls until the pipe closes.

    A message is an error text or None, the answer in a tuple or None, and a list of finished
    requests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(threads))  # read at vLLM's import
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(threads)
    try:
        engine = start()
        connection.send((None, (engine.max_length,), []))
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
    """End this process when its parent ends, even in the middle of a batch."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
