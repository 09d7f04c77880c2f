"""The reference scorer: scores batches of partial pairs in an actor pool of Ray Data.

The weights of partial pairs (section 4.2) are computed later from its scores of every prefix.
"""

import pyarrow as pa
import torch

from orchestrator.choices import Position
from orchestrator.conversations.chat import load_chat
from orchestrator.scorers.loading import chat_of, load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import Ids, ScoreRequest


class ReferenceScorer:
    """Callable for Ray Data's ``map_batches`` that scores with the reference reward model.

    Args:
        reference: the reference RM r_phi.
        tokenizer_checkpoint: folder or hub name whose tokenizer made the token ids and cuts.
        position: where a prefix is scored.
        device: torch device name.
        threads: torch threads.
    """

    def __init__(
        self,
        reference: ScorerSpec,
        tokenizer_checkpoint: str,
        position: Position,
        device: str,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._chat = chat_of(reference)
        self._engine = load_scorer(reference, position, load_chat(tokenizer_checkpoint), device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Add `reference_chosen` and `reference_rejected`, lists with one score for each cut."""
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
        converter = self._engine.token_converter
        converted = [
            converter.convert_response((), response, finished=True) for response in responses
        ]
        if all(ids == response for (_, ids), response in zip(converted, responses, strict=True)):
            # Both models have the same tokens: one pass scores all prefixes.
            prompt_lengths = [
                len(x) - count for x, (count, _) in zip(prompts, converted, strict=True)
            ]
            prompts = [x[:n] for x, n in zip(prompts, prompt_lengths, strict=True)]
            return self._engine.prefix_scores(prompts, responses, cuts)
        closed = self._engine.position == "closed"
        requests = [
            ScoreRequest(
                prompt,
                (),
                tuple(response[:t] for t in lengths),
                # Only a full response in closed position is finished.
                tuple(closed and t >= len(response) for t in lengths),
            )
            for prompt, response, lengths in zip(prompts, responses, cuts, strict=True)
        ]
        return [list(scored.scores) for scored in self._engine.score(requests)]
