"""Log ratios of two causal language models: implicit PRMs and density ratios (CDR).

q(x, y_<t) = beta * sum over the first t tokens of log pi_theta(y_t | ..) - log pi_ref(y_t | ..),
with the base as pi_ref ("Free process rewards without process labels"). One forward of each model
gives the values of all prefixes. An implicit PRM is trained for this score; any stronger and weaker
model of one tokenizer give it without training.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from orchestrator.checkpoints.checkpoint import context_of, load_policy
from orchestrator.choices import Aggregation, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.rewards.aggregation import aggregate
from orchestrator.rewards.batching import batches_by_length
from orchestrator.rewards.extensions import Extended, extended_log_probs
from orchestrator.rewards.log_ratio import token_and_end_log_probs
from orchestrator.rewards.masks import unpackable
from orchestrator.scorers.formats import BLANK_LINE
from orchestrator.scorers.scorer import Scorer, check_finite
from orchestrator.scorers.steps import check_delimiter, extended_step_ends, step_ends
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class LogRatioScorer(Scorer):
    """The log ratio of a model to a base model, summed over a prefix.

    The score of a prefix is the sum over its tokens; a finished response adds the log ratio of the
    token with which a policy ends, as in training. With an ``aggregation`` the score aggregates the
    rewards of steps: the difference of q at the two ends of a step, where the last step ends with
    the prefix, with its end token. The sum of these rewards is the score without aggregation.

    Args:
        checkpoint: the model in the numerator, folder or hub name.
        base: the model in the denominator, folder or hub name.
        beta: factor of all scores.
        position: has no effect on a score.
        policy_chat: tokenizer of the ids in requests; None is the models'.
        device: torch device name.
        aggregation: how the rewards of a prefix's steps are aggregated; None: the score is q.
        step_delimiter: text that ends a step.
        fold_system: as in ``ScorerSpec``.

    Raises:
        ValueError: the models have different vocabularies, or one is not a language model; or, with
            an aggregation, their tokenizer does not keep the delimiter.
    """

    def __init__(
        self,
        checkpoint: str,
        base: str,
        beta: float = 1.0,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        aggregation: Aggregation | None = None,
        step_delimiter: str = BLANK_LINE,
        *,
        fold_system: bool = True,
    ) -> None:
        super().__init__(load_chat(checkpoint, fold_system), position, policy_chat)
        check_vocabularies(checkpoint, base)
        if aggregation is not None:
            check_delimiter(self.chat, step_delimiter)
        both = (checkpoint, base)
        self.context_length = min(map(context_of, both))
        self.models = [load_policy(name).to(device).eval() for name in both]
        self._end_id = self.chat.end_id
        self.beta, self.aggregation, self.step_delimiter = beta, aggregation, step_delimiter

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes by one forward of each model per response.

        A prefix that is the full response counts as finished.
        """
        rows = list(zip(prompts, responses, strict=True))
        longest = [min(max(row, default=0), len(y)) for row, (_, y) in zip(cuts, rows, strict=True)]
        self.check_context_length([len(x) + end for (x, _), end in zip(rows, longest, strict=True)])
        results: list[list[float]] = [[] for _ in rows]
        for batch in batches_by_length([len(x) + len(y) for x, y in rows]):
            values, ends = self._ratios([rows[i] for i in batch])
            for i, q, end in zip(batch, values.tolist(), ends.tolist(), strict=True):
                steps = self._steps(responses[i])
                length = len(responses[i])
                scores = [
                    self._score(q, end[t] if t == length else 0.0, steps, t)
                    for t in (min(cut, length) for cut in cuts[i])
                ]
                results[i] = scores * (len(positions) or 1)
        check_finite(results)
        return results

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score requests; both models compute a request's prefix once for all its extensions."""
        if any(map(unpackable, self.models)):
            return self._separately(requests)
        rows = [Extended(r.prompt_ids, r.prefix_ids, r.extensions) for r in requests]
        results = [Scored((), 0)] * len(rows)
        # Each extension attends to its prefix: in the memory of the mask it counts as a full text.
        longest = [max(map(len, row.extensions), default=0) for row in rows]
        sizes = [
            (1 + len(row.extensions)) * (len(row.prompt_ids + row.prefix_ids) + most)
            for row, most in zip(rows, longest, strict=True)
        ]
        for batch in batches_by_length(sizes):
            batch_rows = [rows[i] for i in batch]
            finished = [requests[i].are_finished for i in batch]
            batch_scores = self._extended(batch_rows, finished)
            for i, row, scores in zip(batch, batch_rows, batch_scores, strict=True):
                reused = (len(row.extensions) - 1) * len(row.prompt_ids + row.prefix_ids)
                results[i] = Scored(tuple(scores), 2 * row.tokens, 2 * max(reused, 0))
        check_finite([scored.scores for scored in results])
        return results

    def _separately(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score every extension as a separate response, with models that cannot be packed."""
        results = []
        for request in requests:
            texts = [(request.prompt_ids, request.prefix_ids + y) for y in request.extensions]
            scores = []
            for text, finished in zip(texts, request.are_finished, strict=True):
                (q,), (ends,) = (values.tolist() for values in self._ratios([text]))
                count = len(text[1])
                end = ends[count] if finished else 0.0
                scores.append(self._score(q, end, self._steps(text[1]), count))
            tokens = sum(self.tokens_of_prefixes(x, y, ()) for x, y in texts)
            results.append(Scored(tuple(scores), tokens))
        check_finite([scored.scores for scored in results])
        return results

    def _extended(
        self, rows: Sequence[Extended], finished: Sequence[Sequence[bool]]
    ) -> list[list[float]]:
        """Return the scores of all extensions of each row."""
        numerator, denominator = (
            extended_log_probs(m, rows, self._end_id, self.chat.tokenizer.eos_token_id)
            for m in self.models
        )
        results = []
        for row, are_finished, over, under in zip(
            rows, finished, numerator, denominator, strict=True
        ):
            steps = self._extended_steps(row)
            scores = []
            for ends, is_finished, up, down in zip(steps, are_finished, over, under, strict=True):
                *ratios, end = (self.beta * (a - b) for a, b in zip(up, down, strict=True))
                q = list(accumulate(ratios, initial=0.0))
                closing = end if is_finished else 0.0
                scores.append(self._score(q, closing, ends, len(ratios)))
            results.append(scores)
        return results

    def _extended_steps(self, row: Extended) -> list[list[int]]:
        if self.aggregation is None:
            return [[] for _ in row.extensions]
        return extended_step_ends(self.chat, row.prefix_ids, row.extensions, self.step_delimiter)

    def closing(self, position: Position) -> Ids:
        """Return no tokens, for any position."""
        return ()

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Return the tokens of prompt and response, for both models."""
        return 2 * (len(prompt) + len(response))

    @torch.no_grad()
    def _ratios(self, rows: Sequence[tuple[Ids, Ids]]) -> tuple[Tensor, Tensor]:
        """Return q of the first t tokens, and what ending there adds: (N, T + 1) each, t = 0..T."""
        pad_id, end_id = self.chat.tokenizer.eos_token_id, self._end_id
        (over, over_end), (under, under_end) = (
            [values.double().cpu() for values in token_and_end_log_probs(m, rows, end_id, pad_id)]
            for m in self.models
        )
        sums = torch.nn.functional.pad((over - under).cumsum(1), (1, 0))
        return self.beta * sums, self.beta * (over_end - under_end)

    def _steps(self, response: Ids) -> list[int]:
        if self.aggregation is None:
            return []
        return step_ends(self.chat, response, self.step_delimiter)

    def _score(self, q: Sequence[float], end: float, steps: Sequence[int], t: int) -> float:
        """Return the score of y_<t; ``end`` is what the end token adds."""
        if self.aggregation is None:
            return q[t] + end
        ends = [0, *(step for step in steps if step < t), t]
        rewards = [q[last] - q[first] for first, last in pairwise(ends)]
        rewards[-1] += end
        return aggregate(rewards, self.aggregation, probabilities=False)


def check_vocabularies(checkpoint: str, base: str) -> None:
    """Check that two models have the same vocabulary.

    Raises:
        ValueError: they do not.
    """
    first, second = (load_chat(name).tokenizer.get_vocab() for name in (checkpoint, base))
    if first != second:
        raise ValueError(
            f"{checkpoint} and {base} have different vocabularies: a log ratio compares the same"
            " tokens under both models"
        )
