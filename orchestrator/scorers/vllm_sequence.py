"""Scores for search from vLLM: its task `classify` reads the score at the last token of a text.

Each extension, with the closing suffix, is a text of its own; what begins as an earlier text does
is read from vLLM's prefix cache, in whole blocks.
"""

from collections.abc import Sequence

from orchestrator.choices import Position
from orchestrator.scorers.scorer import check_finite
from orchestrator.scorers.vllm_scorer import PoolingEngine, VllmScorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class LastScores(PoolingEngine):
    """The engine, in its process: the score at the last token of a text."""

    task, caching = "classify", True

    def scores(self, texts: list[list[int]]) -> list[tuple[float, int]]:
        """The score at the last token of each text, and the tokens computed for it."""
        return [
            (float(output.outputs.data[0]), len(text) - output.num_cached_tokens)
            for text, output in zip(texts, self.encoded(texts), strict=True)
        ]


class VllmSequenceScorer(VllmScorer):
    """A reward model behind vLLM that scores texts as a search makes them, open or closed."""

    _engine_kind = LastScores

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._engine.call("forget")

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

    def score_own(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's, and as ``prefix_scores``; equal texts are read once."""
        texts = [
            [
                request.prompt_ids + request.prefix_ids + y + self.closing(self.scored_at(end))
                for y, end in zip(request.extensions, request.are_finished, strict=True)
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
        found = self._engine.call("scores", [list(text) for text in places]) if places else []
        results = []
        for row in texts:
            own = []
            for text in row:
                value, tokens = found[places[text]]
                own.append((value, tokens))
                found[places[text]] = value, 0
            results.append(own)
        return results
