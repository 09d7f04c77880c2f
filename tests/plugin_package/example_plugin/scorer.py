"""Likelihood: a prefix's score is the mean log-probability of its tokens under a language model."""

from collections.abc import Sequence

from orchestrator.choices import Position
from orchestrator.fields.types import Positive
from orchestrator.rewards.batching import batches_by_length
from orchestrator.scorers.kind import LoadOptions, ScorerKind, register
from orchestrator.scorers.scorer import Scorer, check_finite
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids


@register
class Likelihood(ScorerKind):
    """How likely a language model finds a response; a baseline without any reward model."""

    name = "likelihood"
    summary = "the mean log-probability of a prefix under a language model"
    head_types = ("language model",)
    position_matters = False

    temperature: Positive = 1.0
    """The logits are divided by it."""

    def reads_logits(self, spec: ScorerSpec) -> bool:
        """All scores are made of logits."""
        return True

    def load(self, spec: ScorerSpec, load_options: LoadOptions) -> Scorer:
        """Load the language model."""
        return LikelihoodScorer(self, spec, load_options)


class LikelihoodScorer(Scorer):
    """Scores a prefix by its mean log-probability (nats per token); 0 for an empty one."""

    def __init__(self, kind: Likelihood, spec: ScorerSpec, load_options: LoadOptions) -> None:
        from orchestrator.checkpoints.checkpoint import context_of, load_policy

        super().__init__(
            kind.chat(spec), load_options.position, load_options.policy_chat, spec.finished_position
        )
        self.context_length = context_of(spec.checkpoint)
        self._model = load_policy(spec.checkpoint).to(load_options.device).eval()
        self._temperature = kind.temperature

    def closing(self, position: Position) -> Ids:
        """Nothing is written after a prefix."""
        return ()

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Return the scores of N responses at their cuts, from one forward per response."""
        rows = list(zip(prompts, responses, strict=True))
        lengths = [len(prompt) + len(response) for prompt, response in rows]
        self.check_context_length(lengths)
        scores: list[list[float]] = [[] for _ in rows]
        for batch in batches_by_length(lengths):
            sums = self._log_probs([rows[i] for i in batch])
            for i, totals in zip(batch, sums, strict=True):
                ends = [min(cut, len(responses[i])) for cut in cuts[i]]
                means = [totals[end] / max(end, 1) for end in ends]
                scores[i] = means * (len(positions) or 1)
        check_finite(scores)
        return scores

    def _log_probs(self, rows: Sequence[tuple[Ids, Ids]]) -> list[list[float]]:
        """Return the summed log-probability of the first t response tokens, t = 0..T, per row."""
        import torch

        texts = [torch.tensor(prompt + response) for prompt, response in rows]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(self._model.device)
        with torch.inference_mode():  # padding is on the right, where no earlier token sees it
            logits = self._model(input_ids=ids).logits[:, :-1].double() / self._temperature
        log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        sums = []
        for (prompt, response), values in zip(rows, log_probs, strict=True):
            own = values[len(prompt) - 1 : len(prompt) + len(response) - 1]
            sums.append([0.0, *own.cumsum(0).tolist()])
        return sums
