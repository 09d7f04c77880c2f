"""Causal sequence classifiers read at one label: ORMs, SP-PRMs and most public reward models.

Their head may have another trainer's name (`engines/reward_heads.py`). A request's prefix is read
on from where it was read before, its extensions (with the closing suffix, for closed scoring) are
tails behind it; the one that is chosen is not computed again.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from math import isfinite

import torch
from torch import Tensor

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import DTYPES, Dtype, context_of, load_reward_model
from orchestrator.engines.key_values import MEMORY_MIB
from orchestrator.engines.reading import Reader, Tails
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Position, Scorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest

LEAST_GROUP = 64  # tokens of extensions that are read at once


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

    Raises:
        ValueError: as of ``load_reward_model``.
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
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        self.model = load_reward_model(checkpoint, DTYPES[dtype], label).to(device).eval()
        self.context = context_of(checkpoint)
        pad_id = self.chat.end_ids[-1]
        self._pass = PackedPass(self.model, pad_id, branch_memory_mib=branch_memory_mib)
        self._reader = Reader(self.model, self._hidden, pad_id, memory_mib)

    def forget(self) -> None:
        """Drops all keys and values that are kept."""
        self._reader.forget()

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

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; what was read before of a request's prefix is not computed again.

        A score that is NaN or infinite is given as it is.
        """
        closing = self.closing(self.position)
        own = [self._own(request) for request in requests]
        self.check_room(
            [len(text) + max(map(len, some), default=0) + len(closing) for text, some in own]
        )
        found: dict[Ids, dict[Ids, float]] = {}
        tokens: dict[Ids, int] = {}
        waiting: dict[Ids, dict[Ids, None]] = {}
        for text, extensions in own:
            waiting.setdefault(text, {}).update(dict.fromkeys(extensions))
        groups = {text: _groups(len(text), list(asked), closing) for text, asked in waiting.items()}
        while groups:
            self._read({text: parts.pop() for text, parts in groups.items()}, found, tokens)
            groups = {text: parts for text, parts in groups.items() if parts}
        results = []
        for text, extensions in own:
            scores = found[text]
            values = tuple(scores[extension] for extension in extensions)
            computed = tokens.pop(text, 0)  # paid for by the first who asks
            whole = sum(len(text) + len(extension) + len(closing) for extension in extensions)
            results.append(Scored(values, computed, whole - computed))
        return results

    def _own(self, request: ScoreRequest) -> tuple[Ids, tuple[Ids, ...]]:
        """Prompt and prefix in the model's tokens, as far as all extensions agree, and the rest."""
        if self.shares_tokenizer:
            return request.prompt_ids + request.prefix_ids, request.extensions
        whole = [self.own_ids(request.prefix_ids, extension) for extension in request.extensions]
        columns = zip(*whole, strict=False)
        shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
        return request.prompt_ids + whole[0][:shared], tuple(y[shared:] for y in whole)

    @torch.inference_mode()
    def _read(
        self,
        asked: dict[Ids, list[Ids]],
        found: dict[Ids, dict[Ids, float]],
        tokens: dict[Ids, int],
    ) -> None:
        """Scores some extensions of each text."""
        closing = self.closing(self.position)
        tails: list[Tails] = [[(y, closing) for y in own if y + closing] for own in asked.values()]
        last = [() in own and not closing for own in asked.values()]
        texts = list(asked)
        reads = self._reader.read(texts, tails, last)
        hidden = [read.tails for read in reads]
        hidden += [read.last[None] for read in reads if read.last is not None]
        values = self.model.score(torch.cat(hidden)).squeeze(-1).tolist()
        if not all(map(isfinite, values)):
            self.forget()  # keys and values of NaN, where others' padding may come to stand
        scores = iter(values)
        for text, own, read in zip(texts, tails, reads, strict=True):
            found.setdefault(text, {}).update((extension, next(scores)) for extension, _ in own)
            tokens[text] = tokens.get(text, 0) + read.computed
        for text, read in zip(texts, reads, strict=True):
            if read.last is not None:
                found[text][()] = next(scores)

    def _hidden(self, **inputs: object) -> Tensor:
        hidden: Tensor = self.model.base_model(**inputs).last_hidden_state
        return hidden


def _groups(room: int, extensions: list[Ids], closing: Ids) -> list[list[Ids]]:
    """Extensions in groups of at most ``room`` tokens, or of one, the last group first.

    Extensions do not see each other, but a dense mask pays for all pairs of positions.
    """
    groups: list[list[Ids]] = []
    used = 0
    for extension in extensions:
        size = len(extension) + len(closing)
        if not groups or used + size > max(room, LEAST_GROUP):
            groups.append([])
            used = 0
        groups[-1].append(extension)
        used += size
    return groups[::-1]
