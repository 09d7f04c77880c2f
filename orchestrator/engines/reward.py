"""The Hugging Face reward engine: batches of score requests in, scores out.

A request's prefix is the trunk of a row, each extension (with the closing suffix, for closed
scoring) a branch; long extensions are spread over several rows. Knows nothing of search or of Ray.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from transformers import PreTrainedModel

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import load_reward_model
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import Branch, PackedRow, prefix_row
from orchestrator.search.engines import Ids, Scored, ScoreRequest

Position = Literal["closed", "open"]
TOKENS_PER_BATCH = 16_384  # one forward's tokens, padding included; bounds the mask's memory


class RewardIsNotFinite(ValueError):
    """A reward model gave NaN or infinity; the message names the rows."""


class HuggingFaceReward:
    """A causal reward model that scores prefixes.

    Args:
        checkpoint: folder or hub name.
        position: where a prefix is scored: ``closed`` after the template's closing suffix,
            ``open`` at its last content token.
        policy_chat: the tokenizer that a request's prefix and extension ids belong to; None means
            the model's own. Its prompt ids are always the model's own (another template).
        device: torch device name.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
    ) -> None:
        self.chat = load_chat(checkpoint)
        self.model: PreTrainedModel = load_reward_model(checkpoint).to(device).eval()
        self.position, self.device = position, device
        self._policy_chat = None if policy_chat and _same(policy_chat, self.chat) else policy_chat

    @property
    def shares_tokenizer(self) -> bool:
        """Whether the policy's token ids are the model's own, and pass straight through."""
        return self._policy_chat is None

    def closing(self, position: Position) -> Ids:
        """The closing suffix of a position: empty for open scoring."""
        return self.chat.closing_ids if position == "closed" else ()

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) for each t of ``cuts[i]``, one pass a response; ids are the model's own.

        Several ``positions`` are scored in the same pass: all cuts of the first, then of the next.
        """
        closings = [self.closing(position) for position in positions or (self.position,)]
        rows = []
        for prompt, response, row_cuts in zip(prompts, responses, cuts, strict=True):
            parts = [prefix_row(prompt, [response], [row_cuts], closing) for closing in closings]
            branches = tuple(branch for part in parts for branch in part.branches)
            rows.append(replace(parts[0], branches=branches))
        return self.score_rows(rows)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Scores all requests; result i belongs to request i."""
        if self._policy_chat is not None:
            return [self._score_as_text(request, self._policy_chat) for request in requests]
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

    def _score_as_text(self, request: ScoreRequest, policy_chat: Chat) -> Scored:
        """Another tokenizer than the policy's: each candidate is written out, tokenized whole."""
        rows, closing = [], self.closing(self.position)
        for extension in request.extensions:
            response = self.chat.response_ids(policy_chat.text(request.prefix_ids + extension))
            rows.append(prefix_row(request.prompt_ids, [response], [[len(response)]], closing))
        scores = self.score_rows(rows)
        return Scored(tuple(s[0] for s in scores), sum(row.tokens for row in rows))

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
        bad = [i for i, values in enumerate(results) if not all(map(math.isfinite, values))]
        if bad:
            raise RewardIsNotFinite(f"rewards of rows {bad[:20]} (of {len(bad)}) are not finite")
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


def _same(first: Chat, second: Chat) -> bool:
    """Whether token ids mean the same text in both."""
    return (
        first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
        and first.closing_ids == second.closing_ids
    )
