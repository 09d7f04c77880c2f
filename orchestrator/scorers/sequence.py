"""Causal sequence classifiers with one label: ORMs, SP-PRMs and most public reward models.

A request's prefix is the trunk of a packed row, each extension (with the closing suffix, for closed
scoring) a branch; long extensions are spread over several rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import load_reward_model
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import Branch, PackedRow, prefix_row
from orchestrator.scorers.scorer import Position, Scorer, check_finite
from orchestrator.search.engines import Ids, Scored, ScoreRequest

TOKENS_PER_BATCH = 16_384  # one forward's tokens, padding included; bounds the mask's memory


class SequenceScorer(Scorer):
    """A reward model whose score is read from the hidden state of one token.

    Args:
        checkpoint: folder or hub name.
        position: where a prefix is scored.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        self.model: PreTrainedModel = load_reward_model(checkpoint).to(device).eval()

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """As every scorer's; one pass a response."""
        closings = [self.closing(position) for position in positions or (self.position,)]
        rows = []
        for prompt, response, row_cuts in zip(prompts, responses, cuts, strict=True):
            parts = [prefix_row(prompt, [response], [row_cuts], closing) for closing in closings]
            branches = tuple(branch for part in parts for branch in part.branches)
            rows.append(replace(parts[0], branches=branches))
        return self.score_rows(rows)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; the prefix of a request is computed once for all its extensions."""
        if not self.shares_tokenizer:
            return super().score(requests)
        closing = self.closing(self.position)
        rows, owners = [], []
        for owner, request in enumerate(requests):
            prompt, prefix = request.prompt_ids, request.prefix_ids
            branches = [Branch(len(prefix), ext + closing) for ext in request.extensions]
            for some in _within(len(prompt) + len(prefix), branches):
                rows.append(PackedRow(prompt, (prefix,), some))
                owners.append(owner)
        scores: list[tuple[float, ...]] = [()] * len(requests)
        tokens = [0] * len(requests)
        for owner, row, values in zip(owners, rows, self.score_rows(rows), strict=True):
            scores[owner] += tuple(values)
            tokens[owner] += row.tokens
        return [Scored(values, count) for values, count in zip(scores, tokens, strict=True)]

    @torch.no_grad()
    def score_rows(self, rows: Sequence[PackedRow]) -> list[list[float]]:
        """Scores of packed rows, batched by length; result i holds row i's branches.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
        """
        results: list[list[float]] = [[] for _ in rows]
        for batch in _batches_by_length(rows):
            some = [rows[i] for i in batch]
            scores = packed_scores(self.model, some, self.chat.tokenizer.eos_token_id).cpu()
            for i, values in zip(batch, scores.tolist(), strict=True):
                results[i] = values[: len(rows[i].branches)]
        check_finite(results)
        return results


def _within(room: int, branches: Sequence[Branch]) -> list[tuple[Branch, ...]]:
    """Branches in groups of at most ``room`` tokens, or of one.

    Branches do not see each other, but a dense mask pays for all pairs of positions: past the
    trunk's own length, computing the trunk again is cheaper.
    """
    groups: list[tuple[Branch, ...]] = []
    used = 0
    for branch in branches:
        size = len(branch.token_ids)
        if groups and used + size <= room:
            groups[-1] += (branch,)
            used += size
        else:
            groups.append((branch,))
            used = size
    return groups


def _batches_by_length(rows: Sequence[PackedRow]) -> list[list[int]]:
    """Row numbers by rising length, in batches of at most TOKENS_PER_BATCH padded tokens."""
    batches: list[list[int]] = []
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (rows[i].tokens, i)):
        if batch and rows[i].tokens * (len(batch) + 1) > TOKENS_PER_BATCH:
            batches.append(batch)
            batch = []
        batch.append(i)
    return [*batches, batch] if batch else batches
