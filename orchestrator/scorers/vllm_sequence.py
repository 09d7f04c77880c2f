"""Scores for search from vLLM: its task `classify` returns the score at the last token of a text.

Each extension, with its closing tokens, is a separate text. vLLM's prefix cache provides the prefix
that a text shares with earlier ones, in full blocks.
"""

from collections.abc import Sequence

from orchestrator.choices import Position
from orchestrator.scorers.scorer import check_finite
from orchestrator.scorers.vllm_scorer import PoolingEngine, VllmScorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class LastScores(PoolingEngine):
    """The engine in its process: returns the score at the last token of a text."""

    task, caching = "classify", True

    def scores(self, texts: list[list[int]]) -> list[tuple[float, int]]:
        """Return the score at the last token of each text, and the tokens computed for it."""
        return [
            (float(output.outputs.data[0]), len(text) - output.num_cached_tokens)
            for text, output in zip(texts, self.encoded(texts), strict=True)
        ]


class VllmSequenceScorer(VllmScorer):
    """A reward model on vLLM that scores the texts of a search, open or closed."""

    _engine_kind = LastScores

    def clear_cache(self) -> None:
        """Drop all cached keys and values."""
        self._engine.call("clear_cache")

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes, each as a separate text.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            SequenceDoesNotFit: a text is empty or longer than vLLM reads.
            RuntimeError: vLLM failed, the engine is closed, or its process has ended.
        """
        closings = [self.closing(position) for position in positions or (self.position,)]
        texts = [
            [prompt + response[:cut] + closing for closing in closings for cut in row]
            for prompt, response, row in zip(prompts, responses, cuts, strict=True)
        ]
        results = [[value for value, _ in row] for row in self._read(texts)]
        check_finite(results)
        return results

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score requests, each extension as a separate text; equal texts are computed once."""
        texts = [
            [
                request.prompt_ids + request.prefix_ids + y + self.closing(self.scored_at(finished))
                for y, finished in zip(request.extensions, request.are_finished, strict=True)
            ]
            for request in requests
        ]
        results = []
        for request_texts, row in zip(texts, self._read(texts), strict=True):
            computed = sum(tokens for _, tokens in row)
            total = sum(map(len, request_texts))
            results.append(Scored(tuple(value for value, _ in row), computed, total - computed))
        check_finite([scored.scores for scored in results])
        return results

    def _read(self, texts: list[list[Ids]]) -> list[list[tuple[float, int]]]:
        """Return each text's score and computed tokens, counted for the first of equal texts."""
        self._engine.check_fits([[len(text) for text in row] for row in texts])
        distinct = list(dict.fromkeys(text for row in texts for text in row))
        scores = self._engine.call("scores", [list(text) for text in distinct]) if distinct else []
        by_text = dict(zip(distinct, scores, strict=True))
        results = []
        for row in texts:
            row_scores = []
            for text in row:
                value, tokens = by_text[text]
                row_scores.append((value, tokens))
                by_text[text] = value, 0
            results.append(row_scores)
        return results
