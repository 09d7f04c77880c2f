"""Scores for search from vLLM: its task `classify` reads the score at the last token of a text.

Each extension, with the closing suffix, is a text of its own; what begins as an earlier text does
is read from vLLM's prefix cache, in whole blocks.
"""

from collections.abc import Sequence
from typing import Any

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.vllm_process import VllmProcess, language_model
from orchestrator.scorers.scorer import Position, Scorer, check_finite
from orchestrator.scorers.token_classify import check_model
from orchestrator.search.engines import Ids, Scored, ScoreRequest

TEXTS_PER_BATCH = 256


class VllmSequenceScorer(Scorer):
    """A one-label causal reward model behind vLLM, open or closed.

    Args:
        checkpoint: folder or hub name; its head is `score`, transformers' own.
        position: where a prefix is scored.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name; vLLM is built for one kind of device.

    The engine takes as many threads as torch has in this process.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: the head is another trainer's.
        RuntimeError: vLLM cannot serve the model.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        check_model(checkpoint)
        self._engine = VllmProcess(checkpoint, device, _LastScores)

    def close(self) -> None:
        """Ends the engine's process; a scorer that is no longer used does so by itself."""
        self._engine.close()

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._engine.ask("forget")

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; each prefix is a text of its own.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            TextDoesNotFit: a text is empty or longer than vLLM reads.
            RuntimeError: the engine's process has ended.
        """
        closings = [self.closing(position) for position in positions or (self.position,)]
        texts = [
            [prompt + response[:cut] + closing for closing in closings for cut in row]
            for prompt, response, row in zip(prompts, responses, cuts, strict=True)
        ]
        results = [[value for value, _ in row] for row in self._read(texts)]
        check_finite(results)
        return results

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's, and as ``prefix_scores``; equal texts are read once."""
        closing = self.closing(self.position)
        texts = [
            [
                request.prompt_ids + self.own_ids(request.prefix_ids + extension) + closing
                for extension in request.extensions
            ]
            for request in requests
        ]
        results = []
        for own, row in zip(texts, self._read(texts), strict=True):
            computed = sum(tokens for _, tokens in row)
            whole = sum(map(len, own))
            results.append(Scored(tuple(value for value, _ in row), computed, whole - computed))
        check_finite([one.scores for one in results])
        return results

    def _read(self, texts: list[list[Ids]]) -> list[list[tuple[float, int]]]:
        """The score of each text and the tokens computed, which the first of equal ones pays."""
        self._engine.check_fits([[len(text) for text in row] for row in texts])
        places = {text: i for i, text in enumerate(dict.fromkeys(y for row in texts for y in row))}
        found = self._engine.ask("scores", [list(text) for text in places]) if places else []
        results = []
        for row in texts:
            own = []
            for text in row:
                value, tokens = found[places[text]]
                own.append((value, tokens))
                found[places[text]] = value, 0
            results.append(own)
        return results


class _LastScores:
    """The engine, in its process."""

    def __init__(self, checkpoint: str, device: str) -> None:
        from vllm import PoolingParams
        from vllm.config import PoolerConfig

        self._model: Any = language_model(
            checkpoint,
            device,
            runner="pooling",
            convert="classify",
            pooler_config=PoolerConfig(task="classify", use_activation=False),
            hf_overrides={"num_labels": 1},
            dtype="float32",  # as the other scorers
            enable_prefix_caching=True,
            max_num_seqs=TEXTS_PER_BATCH,
            enforce_eager=True,
        )
        self._parameters = PoolingParams(use_activation=False)
        self.scores([[0]])  # what its kernels do not support (small heads, say) shows here
        self.longest = int(self._model.model_config.max_model_len)

    def scores(self, texts: list[list[int]]) -> list[tuple[float, int]]:
        """The score at the last token of each text, and the tokens computed for it."""
        found = self._model.encode(
            [{"prompt_token_ids": text} for text in texts],
            pooling_params=self._parameters,
            pooling_task="classify",
            use_tqdm=False,
        )
        return [
            (float(output.outputs.data[0]), len(text) - output.num_cached_tokens)
            for text, output in zip(texts, found, strict=True)
        ]

    def forget(self) -> None:
        """Empties the prefix cache."""
        self._model.reset_prefix_cache()
