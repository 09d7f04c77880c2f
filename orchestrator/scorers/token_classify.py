"""Open prefix scores from vLLM: its task `token_classify` gives the score at every token of a text.

For texts that are known whole; a search asks `vllm_sequence.py`. Closed scores of K prefixes would
be K texts, since every-token pooling reads no cached prefix: the packed pass is the way to those.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.choices import Finished, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.scorers.scorer import check_finite
from orchestrator.scorers.vllm_scorer import PoolingEngine, VllmScorer
from orchestrator.search.engines import Ids


class TokenScores(PoolingEngine):
    """The engine, in its process: the score at every token of a text."""

    task, caching = "token_classify", False  # every-token pooling reads no cached prefix

    def scores(self, texts: list[list[int]]) -> list[np.ndarray]:
        """The score at every token of each text: arrays (T,) float32."""
        return [output.outputs.data[:, 0].float().cpu().numpy() for output in self.encoded(texts)]


class TokenClassifyScorer(VllmScorer):
    """A reward model behind vLLM, for open scores of texts known whole.

    ``position`` is ``open``, or ``closed`` for a model whose turns have no closing suffix.

    Raises:
        ValueError: the position needs a closing suffix.
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
        finished: Finished = "template",
        score_at: ScoreAt | None = None,
        fold_system: bool = True,
    ) -> None:
        check_open(checkpoint, load_chat(checkpoint, fold_system, score_at), position)
        super().__init__(
            checkpoint, position, policy_chat, device, cache_mib,
            finished=finished, score_at=score_at, fold_system=fold_system,
        )  # fmt: skip

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
        found = self._engine.call("scores", [list(text) for text in texts]) if texts else []
        results = []
        for x, y, row, scores in zip(prompts, responses, cuts, found, strict=True):
            values = [float(scores[len(x) + min(t, len(y)) - 1]) for t in row]
            results.append(values * len(wanted))
        check_finite(results)
        return results


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
