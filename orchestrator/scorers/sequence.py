"""Causal sequence classifiers whose score is one label's logit: ORMs, SP-PRMs, most public RMs.

The name of the head depends on the trainer (`checkpoints/reward_heads.py`). A request's prefix
continues from its cached keys and values. Each extension (with the closing suffix, for closed
scoring) is a branch of the prefix. The branch that the search selects stays in the KV cache and is
not recomputed in the next step.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import torch
from torch import Tensor

from orchestrator.checkpoints.checkpoint import (
    DTYPES,
    context_of,
    load_logit_model,
    load_reward_model,
)
from orchestrator.choices import BRANCH_MEMORY_MIB, Dtype, FinishedPosition, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.engines.kv_cache.cached_forward import CachedForward
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Scorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest

MIN_GROUP_LIMIT = 64  # lower bound of the token limit of a group
Tail = tuple[Ids, Ids]  # an extension and its closing, a branch of the prefix
EMPTY_TAIL: Tail = ((), ())  # the prefix itself, scored at its last token


class SequenceScorer(Scorer):
    """A reward model whose score is read from the hidden state of one token.

    Args:
        checkpoint: folder or hub name.
        position: where a prefix is scored.
        policy_chat: tokenizer of the ids in requests; None is the model's.
        device: torch device name.
        branch_memory_mib: memory limit for the branches of a pass (MiB).
        cache_mib: memory of the KV cache (MiB).
        dtype: dtype of the weights.
        label: index of the label that is the score, of a head of several labels; only that one is
            loaded.
        finished_position: where a finished response is scored, as in ``ScorerSpec``.
        score_at: as in ``ScorerSpec``.
        score_token: as in ``ScorerSpec``.
        fold_system: as in ``ScorerSpec``.

    Raises:
        ValueError: as for ``load_reward_model`` or ``load_logit_model``.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
        cache_mib: float = MEMORY_MIB,
        dtype: Dtype = "float32",
        label: int | None = None,
        *,
        finished_position: FinishedPosition = "template",
        score_at: ScoreAt | None = None,
        score_token: int | None = None,
        fold_system: bool = True,
    ) -> None:
        chat = load_chat(checkpoint, fold_system, score_at)
        super().__init__(chat, position, policy_chat, finished_position)
        if score_token is None:
            model = load_reward_model(checkpoint, DTYPES[dtype], label)
        else:
            model = load_logit_model(checkpoint, score_token, DTYPES[dtype])
        self.model = model.to(device).eval()
        self.context_length = context_of(checkpoint)
        pad_id = self.chat.end_ids[-1]
        self._pass = PackedPass(self.model, pad_id, branch_memory_mib=branch_memory_mib)
        self._cached = CachedForward(self.model, self._hidden, pad_id, cache_mib)

    def clear_cache(self) -> None:
        """Drop all cached keys and values."""
        self._cached.clear_cache()

    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """Score prefixes in one pass per response."""
        closings = [self.closing(position) for position in positions or (self.position,)]
        rows = []
        for prompt, response, row_cuts in zip(prompts, responses, cuts, strict=True):
            parts = [prefix_row(prompt, [response], [row_cuts], closing) for closing in closings]
            branches = tuple(branch for part in parts for branch in part.branches)
            rows.append(replace(parts[0], branches=branches))
        self.check_context_length([row.longest for row in rows])
        return self._pass.score_rows(rows)

    def score_in_model_tokens(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Score requests; the cached part of a prefix is not computed again.

        A score that is NaN or infinite is returned as it is.
        """
        prefixes = [request.prompt_ids + request.prefix_ids for request in requests]
        tails = [self._tails(request) for request in requests]
        tails_by_prefix: dict[Ids, dict[Tail, None]] = {}
        for prefix, prefix_tails in zip(prefixes, tails, strict=True):
            tails_by_prefix.setdefault(prefix, {}).update(dict.fromkeys(prefix_tails))
        groups = {
            prefix: _groups(len(prefix), list(distinct))
            for prefix, distinct in tails_by_prefix.items()
        }
        scores: dict[Ids, dict[Tail, float]] = {}
        tokens: dict[Ids, int] = {}
        while groups:
            next_groups = {prefix: waiting.pop() for prefix, waiting in groups.items()}
            self._score_groups(next_groups, scores, tokens)
            groups = {prefix: waiting for prefix, waiting in groups.items() if waiting}
        results = []
        for prefix, prefix_tails in zip(prefixes, tails, strict=True):
            computed = tokens.pop(prefix, 0)  # counted for the first request with this prefix
            total = sum(len(prefix) + len(y) + len(closing) for y, closing in prefix_tails)
            values = tuple(scores[prefix][tail] for tail in prefix_tails)
            results.append(Scored(values, computed, total - computed))
        return results

    def _tails(self, request: ScoreRequest) -> list[Tail]:
        """Return the extensions of a request, each with its closing."""
        return [
            (extension, self.closing(self.scored_at(finished)))
            for extension, finished in zip(request.extensions, request.are_finished, strict=True)
        ]

    @torch.inference_mode()
    def _score_groups(
        self,
        groups: dict[Ids, list[Tail]],
        scores: dict[Ids, dict[Tail, float]],
        tokens: dict[Ids, int],
    ) -> None:
        """Score one group of tails of each prefix; add to ``scores`` and ``tokens``."""
        prefixes = list(groups)
        tails = [[tail for tail in groups[prefix] if tail != EMPTY_TAIL] for prefix in prefixes]
        outputs = self._cached.run(
            prefixes, tails, [EMPTY_TAIL in groups[prefix] for prefix in prefixes]
        )
        hidden = [output.branch_ends for output in outputs]
        hidden += [output.last[None] for output in outputs if output.last is not None]
        values = self.model.score(torch.cat(hidden)).squeeze(-1).tolist()
        if not all(map(isfinite, values)):
            self.clear_cache()  # NaN keys and values could reach other rows as padding
        values = iter(values)
        for prefix, prefix_tails, output in zip(prefixes, tails, outputs, strict=True):
            scores.setdefault(prefix, {}).update((tail, next(values)) for tail in prefix_tails)
            tokens[prefix] = tokens.get(prefix, 0) + output.tokens_computed
        for prefix, output in zip(prefixes, outputs, strict=True):
            if output.last is not None:
                scores[prefix][EMPTY_TAIL] = next(values)

    def _hidden(self, **inputs: object) -> Tensor:
        hidden: Tensor = self.model.base_model(**inputs).last_hidden_state
        return hidden


def _groups(prefix_length: int, tails: list[Tail]) -> list[list[Tail]]:
    """Split tails into groups, in reverse order, because the caller pops from the end.

    A group has at most max(prefix_length, MIN_GROUP_LIMIT) tokens; a longer tail is a group of its
    own. The attention mask is dense: its cost grows with the square of the number of tokens,
    although tails do not attend to each other. Therefore groups are small.
    """
    limit = max(prefix_length, MIN_GROUP_LIMIT)
    groups: list[list[Tail]] = []
    used = 0
    for tail in tails:
        size = len(tail[0]) + len(tail[1])
        if not groups or used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(tail)
        used += size
    return groups[::-1]
