"""Causal sequence classifiers read at one label: ORMs, SP-PRMs and most public reward models.

Their head may have another trainer's name (`checkpoints/reward_heads.py`). A request's prefix
continues from its cached keys and values. Its extensions (with the closing suffix, for closed
scoring) are tails behind it; the one that is chosen is not computed again.
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
from orchestrator.choices import Dtype, Finished, Position
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.engines.kv_cache.cached_forward import CachedForward
from orchestrator.engines.kv_cache.prefix_cache import MEMORY_MIB
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Scorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest

LEAST_GROUP = 64  # tokens of extensions that are read at once
Tail = tuple[Ids, Ids]  # an extension, and what closes it
_NOTHING: Tail = ((), ())  # the prefix itself, scored at its own last token


class SequenceScorer(Scorer):
    """A reward model whose score is read from the hidden state of one token.

    Args:
        checkpoint: folder or hub name.
        position: where a prefix is scored.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name.
        branch_memory_mib: what the branches of a pass may take beside their trunks.
        memory_mib: of keys and values that are kept between requests.
        dtype: of the weights.
        label: index of the label that is the score, of a head of several; the model here has that
            one alone.
        finished: where a finished response is scored, as of ``ScorerSpec``.
        score_at: as of ``ScorerSpec``.
        score_token: as of ``ScorerSpec``.
        fold_system: as of ``ScorerSpec``.

    Raises:
        ValueError: as of ``load_reward_model`` or of ``load_logit_model``.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
        memory_mib: float = MEMORY_MIB,
        dtype: Dtype = "float32",
        label: int | None = None,
        *,
        finished: Finished = "template",
        score_at: ScoreAt | None = None,
        score_token: int | None = None,
        fold_system: bool = True,
    ) -> None:
        chat = load_chat(checkpoint, fold_system, score_at)
        super().__init__(chat, position, policy_chat, finished)
        if score_token is None:
            model = load_reward_model(checkpoint, DTYPES[dtype], label)
        else:
            model = load_logit_model(checkpoint, score_token, DTYPES[dtype])
        self.model = model.to(device).eval()
        self.context = context_of(checkpoint)
        pad_id = self.chat.end_ids[-1]
        self._pass = PackedPass(self.model, pad_id, branch_memory_mib=branch_memory_mib)
        self._cached = CachedForward(self.model, self._hidden, pad_id, memory_mib)

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._cached.clear_cache()

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
        self.check_room([row.longest for row in rows])
        return self._pass.rows(rows)

    def score_own(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; what was read before of a request's prefix is not computed again.

        A score that is NaN or infinite is given as it is.
        """
        texts = [request.prompt_ids + request.prefix_ids for request in requests]
        tails = [self._tails(request) for request in requests]
        waiting: dict[Ids, dict[Tail, None]] = {}
        for text, some in zip(texts, tails, strict=True):
            waiting.setdefault(text, {}).update(dict.fromkeys(some))
        groups = {text: _groups(len(text), list(some)) for text, some in waiting.items()}
        scores: dict[Ids, dict[Tail, float]] = {}
        tokens: dict[Ids, int] = {}
        while groups:
            self._read({text: parts.pop() for text, parts in groups.items()}, scores, tokens)
            groups = {text: parts for text, parts in groups.items() if parts}
        results = []
        for text, some in zip(texts, tails, strict=True):
            computed = tokens.pop(text, 0)  # paid for by the first who asks
            whole = sum(len(text) + len(y) + len(closing) for y, closing in some)
            values = tuple(scores[text][tail] for tail in some)
            results.append(Scored(values, computed, whole - computed))
        return results

    def _tails(self, request: ScoreRequest) -> list[Tail]:
        """The extensions of a request, each with what closes it."""
        return [
            (extension, self.closing(self.scored_at(end)))
            for extension, end in zip(request.extensions, request.are_finished, strict=True)
        ]

    @torch.inference_mode()
    def _read(
        self,
        asked: dict[Ids, list[Tail]],
        scores: dict[Ids, dict[Tail, float]],
        tokens: dict[Ids, int],
    ) -> None:
        """Scores some extensions of each text."""
        texts = list(asked)
        tails = [[tail for tail in asked[text] if tail != _NOTHING] for text in texts]
        reads = self._cached.run(texts, tails, [_NOTHING in asked[text] for text in texts])
        hidden = [read.branch_ends for read in reads]
        hidden += [read.last[None] for read in reads if read.last is not None]
        values = self.model.score(torch.cat(hidden)).squeeze(-1).tolist()
        if not all(map(isfinite, values)):
            self.forget()  # keys and values of NaN, where others' padding may come to stand
        values = iter(values)
        for text, some, read in zip(texts, tails, reads, strict=True):
            scores.setdefault(text, {}).update((tail, next(values)) for tail in some)
            tokens[text] = tokens.get(text, 0) + read.tokens_computed
        for text, read in zip(texts, reads, strict=True):
            if read.last is not None:
                scores[text][_NOTHING] = next(values)

    def _hidden(self, **inputs: object) -> Tensor:
        hidden: Tensor = self.model.base_model(**inputs).last_hidden_state
        return hidden


def _groups(room: int, tails: list[Tail]) -> list[list[Tail]]:
    """Tails in groups of at most ``room`` tokens, or of one, the last group first.

    Tails do not see each other, but a dense mask pays for all pairs of positions.
    """
    groups: list[list[Tail]] = []
    used = 0
    for tail in tails:
        size = len(tail[0]) + len(tail[1])
        if not groups or used + size > max(room, LEAST_GROUP):
            groups.append([])
            used = 0
        groups[-1].append(tail)
        used += size
    return groups[::-1]
