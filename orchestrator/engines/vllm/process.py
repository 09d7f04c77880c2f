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
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.engines.vllm.install import INSTALL
from orchestrator.search.engines import SequenceDoesNotFit

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

    def abort(self) -> None:
        """Drop the requests in progress."""


@dataclass(frozen=True)
class _Message:
    """A message of the engine's process.

    Attributes:
        number: number of the last call that the process has received.
        is_answer: whether it answers that call; if not, it is about requests in progress.
        value: the call's result, or the finished requests.
        error: text of an exception in place of a value.
    """

    number: int
    is_answer: bool
    value: Any = None
    error: str | None = None


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
        self._sent = 0  # number of the last call
        self._aborted = 0  # number of the last abort
        self._done: deque[object] = deque()
        self._errors: deque[str] = deque()
        try:
            self._max_length = int(self._wait_for_answer())
        except RuntimeError:
            self.close()
            raise

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the engine and return its result.

        Raises:
            RuntimeError: this call failed, the engine is closed, or its process has ended.
        """
        self._send(method, arguments, True)
        return self._wait_for_answer()

    def post(self, method: str, *arguments: object) -> None:
        """Call a method without waiting for its result; ``wait`` raises its error.

        Raises:
            RuntimeError: the engine is closed.
        """
        self._send(method, arguments, False)

    def abort(self) -> None:
        """Drop the requests in progress, with their results and errors, without waiting.

        Raises:
            RuntimeError: the engine is closed.
        """
        self.post("abort")
        self._aborted = self._sent
        self._done.clear()
        self._errors.clear()

    def wait(self) -> list[Any]:
        """Wait until requests finish; return all that did since the last call.

        Raises:
            RuntimeError: a step or a posted call failed, and the requests in progress were dropped;
                or the process has ended.
        """
        while not self._done and not self._errors:
            self._receive()
        if self._errors:
            raise self._failed(self._errors.popleft())
        finished = list(self._done)
        self._done.clear()
        return finished

    def check_fits(self, lengths: Sequence[Collection[int]]) -> None:
        """Check that all lengths (tokens) of each row are between 1 and the engine's limit.

        Raises:
            SequenceDoesNotFit: some are not; the error holds the indices of their rows.
        """
        bad = [
            i
            for i, row in enumerate(lengths)
            if row and not 0 < min(row) <= max(row) <= self._max_length
        ]
        if bad:
            longest = max(max(lengths[i]) for i in bad)
            raise SequenceDoesNotFit(
                f"{self._checkpoint}: {len(bad)} of {len(lengths)} rows are empty or do not fit"
                f" engine 'vllm': rows {bad[:ROWS_NAMED]}; the longest has {longest} tokens; valid:"
                f" 1 to {self._max_length} (the model's context, or less if the KV cache is"
                " smaller)",
                tuple(bad),
            )

    def _send(self, method: str, arguments: Sequence[object], is_answered: bool) -> None:
        if not self.close.alive:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine is closed")
        self._sent += 1
        with contextlib.suppress(OSError):  # if the process has ended, receiving raises
            self._connection.send((self._sent, method, arguments, is_answered))

    def _wait_for_answer(self) -> Any:
        """Return the result of the last call."""
        while (answer := self._receive()) is None:
            pass
        if answer.error is not None:
            raise self._failed(answer.error)
        return answer.value

    def _receive(self) -> _Message | None:
        """Receive a message; return it if it answers the last call.

        Others are queued for ``wait``, without those from before the last abort. The answer to an
        earlier call, whose wait was interrupted, is dropped.
        """
        try:
            message: _Message = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(SHUTDOWN_S)
            code = self._process.exitcode
            raise self._failed(f"its process ended (exit code {code})") from None
        if message.is_answer:
            return message if message.number == self._sent else None
        if message.number >= self._aborted:
            if message.error is not None:
                self._errors.append(message.error)
            self._done += message.value or ()
        return None

    def _failed(self, reason: str) -> RuntimeError:
        return RuntimeError(f"{self._checkpoint}: the vLLM engine: {reason}")


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

    While requests are in progress and no call arrives, the engine steps. If a step or a call
    without an answer fails, the requests in progress are aborted: the engine would fail again.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(threads))  # read at vLLM's import
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(threads)
    try:
        engine = start()
        connection.send(_Message(0, True, engine.max_length))
    except Exception as error:
        connection.send(_Message(0, True, error=_named(error)))
        return
    number = 0
    while True:
        method, arguments, is_answered = "step", (), False
        if not engine.busy or connection.poll():
            try:
                number, method, arguments, is_answered = connection.recv()
            except EOFError:
                return
        try:
            value = getattr(engine, method)(*arguments)
            if is_answered or (method == "step" and value):
                connection.send(_Message(number, is_answered, value))
        except Exception as error:
            connection.send(_Message(number, is_answered, error=_named(error)))
            if not is_answered:
                engine.abort()


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """End this process when its parent ends, even in the middle of a batch."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
