"""Open prefix scores from vLLM: its task `token_classify` returns the score at each token.

It is for responses that are known in full; search uses `vllm_sequence.py`. Closed scores of K
prefixes would need K texts, because pooling of every token does not read cached prefixes; the
packed pass of transformers computes them.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.choices import FinishedPosition, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.scorers.scorer import check_finite
from orchestrator.scorers.vllm_scorer import PoolingEngine, VllmScorer
from orchestrator.search.engines import Ids


class TokenScores(PoolingEngine):
    """The engine in its process: returns the score at each token of a text."""

    task, caching = "token_classify", False  # pooling of every token reads no cached prefix

    def scores(self, texts: list[list[int]]) -> list[np.ndarray]:
        """Return the score at each token of each text: arrays (T,) float32."""
        return [output.outputs.data[:, 0].float().cpu().numpy() for output in self.encoded(texts)]


class TokenClassifyScorer(VllmScorer):
    """A reward model on vLLM, for open scores of responses that are known in full.

    ``position`` is ``open``, or ``closed`` for a model whose template writes no closing.

    Raises:
        ValueError: the position needs a closing.
    """

    _engine_kind = TokenScores

    def __init__(
        self,
        checkpoint: str,
        position: Position = "open",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        cache_mib: int | None = None,
        *,
        finished_position: FinishedPosition = "template",
        score_at: ScoreAt | None = None,
        fold_system: bool = True,
    ) -> None:
        check_open_position(checkpoint, load_chat(checkpoint, fold_system, score_at), position)
        super().__init__(
            checkpoint, position, policy_chat, device, cache_mib,
            finished_position=finished_position, score_at=score_at, fold_system=fold_system,
        )  # fmt: skip

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes by one request per response.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            ValueError: a position needs a closing, or a text is longer than vLLM reads.
            RuntimeError: vLLM failed, the engine is closed, or its process has ended.
        """
        scored_positions = positions or (self.position,)
        for position in scored_positions:
            check_open_position(self._checkpoint, self.chat, position)
        texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
        self._engine.check_fits([[len(text)] for text in texts])
        text_scores = self._engine.call("scores", [list(text) for text in texts]) if texts else []
        results = []
        for x, y, row, scores in zip(prompts, responses, cuts, text_scores, strict=True):
            values = [float(scores[len(x) + min(t, len(y)) - 1]) for t in row]
            results.append(values * len(scored_positions))
        check_finite(results)
        return results


def check_open_position(checkpoint: str, chat: Chat, position: Position) -> None:
    """Check that a position is scored at the last token of the content.

    Raises:
        ValueError: it needs a closing.
    """
    if position == "closed" and chat.closing_ids:
        raise ValueError(
            f"{checkpoint}: engine 'vllm' scores all prefixes of a response in one forward pass,"
            " which needs position open; position closed would need one forward pass per prefix;"
            " valid: position open, or engine transformers"
        )
