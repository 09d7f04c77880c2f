"""Open prefix scores from vLLM: its task `token_classify` gives the score at every token of a text.

For texts that are known whole; a search asks `vllm_sequence.py`. Closed scores of K prefixes would
be K texts, since every-token pooling reads no cached prefix: the packed pass is the way to those.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.reward_heads import find_head
from orchestrator.engines.vllm_process import VllmProcess, check_installed, language_model
from orchestrator.engines.weights import Weights
from orchestrator.scorers.scorer import Position, Scorer, check_finite
from orchestrator.search.engines import Ids

TEXTS_PER_BATCH = 256


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
        check_open(checkpoint, self.chat, position)
        check_model(checkpoint)
        self._engine = VllmProcess(checkpoint, device, _TokenScores)

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
            check_open(self._checkpoint, self.chat, position)
        texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        self._engine.check_fits([[len(text)] for text in texts])
        found = self._engine.ask("scores", [list(text) for text in texts]) if texts else []
        results = []
        for x, y, row, scores in zip(prompts, responses, cuts, found, strict=True):
            values = [float(scores[len(x) + min(t, len(y)) - 1]) for t in row]
            results.append(values * len(wanted))
        check_finite(results)
        return results


def check_model(checkpoint: str) -> None:
    """Checks that vLLM can score with a model, without loading its weights.

    Raises:
        ValueError: the head is another trainer's.
        ModuleNotFoundError: vLLM is not installed; the message says what to install.
    """
    head = find_head(Weights.of(checkpoint))
    if head is None or not head.own or head.labels != 1:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' reads a head `score` of one label and no bias;"
            f" this one is {head}; use engine: transformers"
        )
    check_installed()


def check_open(checkpoint: str, chat: Chat, position: Position) -> None:
    """Checks that a position is scored at the content's last token.

    Raises:
        ValueError: it needs a closing suffix.
    """
    if position == "closed" and chat.closing_ids:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' gives open scores of whole files, not closed ones: a"
            " closing suffix would make a text of every prefix; use position: open or engine:"
            " transformers"
        )


class _TokenScores:
    """The engine, in its process."""

    def __init__(self, checkpoint: str, device: str) -> None:
        from vllm import PoolingParams
        from vllm.config import PoolerConfig

        self._model = language_model(
            checkpoint,
            device,
            runner="pooling",
            convert="classify",
            pooler_config=PoolerConfig(task="token_classify", use_activation=False),
            hf_overrides={"num_labels": 1},
            dtype="float32",  # as the other scorers
            skip_tokenizer_init=True,
            enable_prefix_caching=False,  # every-token pooling does not read it
            max_num_seqs=TEXTS_PER_BATCH,
            enforce_eager=True,
        )
        self._parameters = PoolingParams(use_activation=False)
        self.scores([[0]])  # what its kernels do not support (small heads, say) shows here
        self.longest = int(self._model.model_config.max_model_len)

    def scores(self, texts: list[list[int]]) -> list[np.ndarray]:
        """The score at every token of each text: arrays (T,) float32."""
        found = self._model.encode(
            [{"prompt_token_ids": text} for text in texts],
            pooling_params=self._parameters,
            pooling_task="token_classify",
            use_tqdm=False,
        )
        return [output.outputs.data[:, 0].float().cpu().numpy() for output in found]
