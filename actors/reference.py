"""The reference scorer: what an actor-pool worker of Ray Data runs over batches of cut pairs.

Adds the reference model's scores of every prefix; weights (section 4.2) are made of them later.
"""

import pyarrow as pa
import torch

from orchestrator.choices import Position
from orchestrator.conversations.chat import load_chat
from orchestrator.scorers.registry import chat_of, load_scorer
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.search.engines import Ids, ScoreRequest


class ReferenceScorer:
    """A Ray Data worker with one reference reward model.

    Args:
        reference: r_phi.
        prm: folder or hub name whose tokenizer the cuts count in.
        position: where a prefix is scored.
        device: torch device name.
        threads: torch threads.
    """

    def __init__(
        self,
        reference: ScorerSpec,
        prm: str,
        position: Position,
        device: str,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._chat = chat_of(reference)
        self._engine = load_scorer(reference, position, load_chat(prm), device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Adds `reference_chosen` and `reference_rejected`, lists aligned with the cuts."""
        prompts = [self._chat.reward_prompt_ids(m) for m in batch["messages"].to_pylist()]
        for side in ("chosen", "rejected"):
            cuts = batch[f"{side}_cuts"].to_pylist()
            responses = [tuple(ids) for ids in batch[f"{side}_ids"].to_pylist()]
            scores = self._scores(prompts, responses, cuts)
            column = pa.array(scores, type=pa.list_(pa.float64()))
            batch = batch.append_column(f"reference_{side}", column)
        return batch

    def _scores(
        self, prompts: list[Ids], responses: list[Ids], cuts: list[list[int]]
    ) -> list[list[float]]:
        tokens = self._engine.policy_tokens
        read = [tokens.response((), response, finished=True) for response in responses]
        if all(ids == response for (_, ids), response in zip(read, responses, strict=True)):
            # The reference model's own tokens as they are: all prefixes come from one pass.
            kept = [len(x) - count for x, (count, _) in zip(prompts, read, strict=True)]
            prompts = [x[:end] for x, end in zip(prompts, kept, strict=True)]
            return self._engine.prefix_scores(prompts, responses, cuts)
        closed = self._engine.position == "closed"
        requests = [
            ScoreRequest(
                prompt,
                (),
                tuple(response[:t] for t in lengths),
                tuple(closed and t >= len(response) for t in lengths),
            )
            for prompt, response, lengths in zip(prompts, responses, cuts, strict=True)
        ]
        return [list(scored.scores) for scored in self._engine.score(requests)]
