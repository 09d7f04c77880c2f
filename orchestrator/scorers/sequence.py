"""Causal sequence classifiers with one label: ORMs, SP-PRMs and most public reward models.

Their head may have another trainer's name (`engines/reward_heads.py`). A request's prefix is the
trunk of a packed row, each extension (with the closing suffix, for closed scoring) a branch; long
extensions are spread over several rows.
"""

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.engines.chat import Chat, load_chat
from orchestrator.engines.checkpoints import load_reward_model
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.rewards.packed import Branch, prefix_row
from orchestrator.scorers.packed_pass import PackedPass
from orchestrator.scorers.scorer import Position, Scorer
from orchestrator.search.engines import Ids, Scored, ScoreRequest


class SequenceScorer(Scorer):
    """A reward model whose score is read from the hidden state of one token.

    Args:
        checkpoint: folder or hub name.
        position: where a prefix is scored.
        policy_chat: whose ids come in; None means the model's own.
        device: torch device name.
        branch_memory_mib: what the branches of a pass may take beside their trunks.
    """

    def __init__(
        self,
        checkpoint: str,
        position: Position = "closed",
        policy_chat: Chat | None = None,
        device: str = "cpu",
        branch_memory_mib: int = BRANCH_MEMORY_MIB,
    ) -> None:
        super().__init__(load_chat(checkpoint), position, policy_chat)
        model = load_reward_model(checkpoint).to(device).eval()
        self._pass = PackedPass(model, self.chat.end_ids[-1], branch_memory_mib=branch_memory_mib)

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
        return self._pass.rows(rows)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As every scorer's; the prefix of a request is computed once for all its extensions."""
        if not self.shares_tokenizer:
            return super().score(requests)
        closing = self.closing(self.position)
        scores, tokens = self._pass.branches(
            [(request.prompt_ids, request.prefix_ids) for request in requests],
            [
                [Branch(len(request.prefix_ids), ext + closing) for ext in request.extensions]
                for request in requests
            ],
        )
        return [Scored(tuple(own), count) for own, count in zip(scores, tokens, strict=True)]
