"""Bidirectional reward models (DeBERTa-v3, BERT, RoBERTa), whose score is one label's logit.

Attention is bidirectional, so nothing computed for a prefix can be reused for a longer one: each
prefix is a forward over a text pair (two segments), [CLS] prompt [SEP] prefix [SEP] (RoBERTa writes
two separators between them), batched by length. Open scoring omits the last separator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.checkpoints.loading import load_model
from orchestrator.checkpoints.reward_heads import check_label
from orchestrator.choices import FinishedPosition, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.rewards.batching import batches_by_length
from orchestrator.scorers.detect import inspect_checkpoint
from orchestrator.scorers.scorer import Scorer, check_finite
from orchestrator.search.engines import Ids


class EncoderScorer(Scorer):
    """A reward model on a bidirectional encoder: one forward per prefix.

    Args:
        checkpoint: folder or hub name of an AutoModelForSequenceClassification.
        position: where a prefix is scored.
        policy_chat: tokenizer of the ids in requests; None is the model's.
        device: torch device name.
        label: index of the label that is the score; None if there is one label.
        finished_position: where a finished response is scored, as in ``ScorerSpec``.
        fold_system: as in ``ScorerSpec``.

    Raises:
        ValueError: it has several labels and ``label`` is None, or its weights are not exactly
            those of its class, with the head.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        label: int | None = None,
        *,
        finished_position: FinishedPosition = "template",
        fold_system: bool = True,
    ) -> None:
        super().__init__(
            load_chat(checkpoint, fold_system), position, policy_chat, finished_position
        )
        labels = inspect_checkpoint(checkpoint).labels
        check_label(checkpoint, labels, label)
        model = load_model(
            AutoModelForSequenceClassification, checkpoint, torch.float32, num_labels=labels
        )
        self.model: PreTrainedModel = model.to(device).eval()
        self._label = label or 0
        self.context_length = context_of(checkpoint)

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes, one forward for each different prefix.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            SequenceDoesNotFit: a text is longer than the model reads.
        """
        closings = [self.closing(position) for position in positions or (self.position,)]
        pairs, owners = [], []
        for owner, (prompt, response, row) in enumerate(zip(prompts, responses, cuts, strict=True)):
            pairs += [(prompt, response[:t] + closing) for closing in closings for t in row]
            owners += [owner] * len(closings) * len(row)
        distinct = list(dict.fromkeys(pairs))  # cuts past the end give equal prefixes
        scores = dict(zip(distinct, self._score(distinct), strict=True))
        results: list[list[float]] = [[] for _ in responses]
        for owner, pair in zip(owners, pairs, strict=True):
            results[owner].append(scores[pair])
        check_finite(results)
        return results

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Return the sum of the lengths of all prefixes."""
        end = len(prompt) + len(self.closing(position or self.position))
        return sum(end + min(t, len(response)) for t in cuts)

    @torch.no_grad()
    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        """Return the scores of text pairs: prompt with its separator, and prefix with its own."""
        lengths = [len(first) + len(second) for first, second in pairs]
        self.check_context_length(lengths)
        scores = [0.0] * len(pairs)
        for batch in batches_by_length(lengths):
            logits = self.model(**self._inputs([pairs[i] for i in batch])).logits
            for i, score in zip(batch, logits[:, self._label].float().tolist(), strict=True):
                scores[i] = score
        return scores

    def _inputs(self, pairs: Sequence[tuple[Ids, Ids]]) -> dict[str, Tensor]:
        """Return tokens, mask and token types (B, T) of text pairs, padded on the right."""
        width = max(len(first) + len(second) for first, second in pairs)
        # Padding is on the right and masked, so any id can be used.
        ids, mask, types = torch.zeros(3, len(pairs), width, dtype=torch.int64)
        for row, (first, second) in enumerate(pairs):
            end = len(first) + len(second)
            ids[row, :end] = torch.tensor(first + second)
            mask[row, :end] = 1
            types[row, len(first) : end] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = types
        return {name: value.to(self.model.device) for name, value in inputs.items()}
