"""Shared parts of scorers on vLLM: checks of the model, and the pooling engine in its process."""

from typing import TYPE_CHECKING

from orchestrator.checkpoints.checkpoint import check_reward_weights
from orchestrator.checkpoints.reward_heads import RewardHead, find_head
from orchestrator.checkpoints.weights import Weights
from orchestrator.choices import FinishedPosition, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.engines.vllm.language_model import aborted_on_error, language_model
from orchestrator.engines.vllm.process import VllmProcess, check_installed, check_served
from orchestrator.scorers.scorer import Scorer

if TYPE_CHECKING:
    from vllm import LLM, PoolingRequestOutput

TEXTS_PER_BATCH = 256


class PoolingEngine:
    """The engine in its process; ``task`` is the name of its pooling task in vLLM."""

    task: str
    caching: bool  # whether cached prefixes are read

    def __init__(self, checkpoint: str, device: str, cache_mib: int | None) -> None:
        from vllm import PoolingParams
        from vllm.config import PoolerConfig

        self._model: LLM = language_model(
            checkpoint,
            device,
            cache_mib,
            runner="pooling",
            convert="classify",
            pooler_config=PoolerConfig(task=self.task, use_activation=False),
            hf_overrides={"num_labels": 1},
            dtype="float32",  # the same as in the other scorers
            enable_prefix_caching=self.caching,
            max_num_seqs=TEXTS_PER_BATCH,
            enforce_eager=True,
        )
        self._parameters = PoolingParams(use_activation=False)
        self.encoded([[0]])  # raises if its kernels do not support the model, such as small heads
        self.max_length = int(self._model.model_config.max_model_len)

    def encoded(self, texts: list[list[int]]) -> list["PoolingRequestOutput"]:
        """Return the engine's output for each text."""
        with aborted_on_error(self._model):
            outputs: list[PoolingRequestOutput] = self._model.encode(
                [{"prompt_token_ids": text} for text in texts],
                pooling_params=self._parameters,
                pooling_task=self.task,
                use_tqdm=False,
            )
        return outputs

    @property
    def busy(self) -> bool:
        """Whether requests are in progress; never between calls."""
        return False

    def step(self) -> list[object]:
        """Return no outputs; all come with their call."""
        return []

    def abort(self) -> None:
        """Do nothing: no requests are in progress between calls."""

    def clear_cache(self) -> None:
        """Empty the prefix cache."""
        self._model.reset_prefix_cache()


class VllmScorer(Scorer):
    """A causal reward model with one label on vLLM.

    Args:
        checkpoint: folder or hub name; its head is `score`, as in transformers.
        position: where a prefix is scored.
        policy_chat: tokenizer of the ids in requests; None is the model's.
        device: torch device name; each build of vLLM supports one.
        cache_mib: memory for keys and values (MiB); None is the default of the device.
        finished_position: where a finished response is scored, as in ``ScorerSpec``.
        score_at: as in ``ScorerSpec``.
        fold_system: as in ``ScorerSpec``.

    The engine uses as many threads as torch has in this process.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: the head has another form.
        RuntimeError: vLLM cannot serve the model.
    """

    _engine_kind: type[PoolingEngine]

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        cache_mib: int | None = None,
        *,
        finished_position: FinishedPosition = "template",
        score_at: ScoreAt | None = None,
        fold_system: bool = True,
    ) -> None:
        chat = load_chat(checkpoint, fold_system, score_at)
        super().__init__(chat, position, policy_chat, finished_position)
        self._checkpoint = checkpoint
        check_model(checkpoint)
        self._engine = VllmProcess(checkpoint, device, self._engine_kind, cache_mib)

    def close(self) -> None:
        """End the engine's process; this also happens when the scorer is garbage-collected."""
        self._engine.close()


def check_model(checkpoint: str) -> None:
    """Check that vLLM can score with a model, without loading its weights.

    Raises:
        ValueError: the head has another form or several labels, the checkpoint is an adapter, or
            its weights are not exactly those of a reward model.
        ModuleNotFoundError: vLLM is not installed; the message says what to install.
    """
    check_served(checkpoint)
    head = find_head(Weights.of(checkpoint))
    if head is None or not head.is_native or head.labels != 1:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' needs a reward head `score` with one label and no bias;"
            f" this one {_described(head)}; valid: engine transformers"
        )
    check_reward_weights(checkpoint)
    check_installed()


def _described(head: RewardHead | None) -> str:
    """Return what a reward head is, for a message."""
    if head is None:
        return "has no reward head"
    labels = "one label" if head.labels == 1 else f"{head.labels} labels"
    bias = ", and a bias" if head.bias else ""
    return f"has {' and '.join(head.layers)} with {labels}{bias}"
