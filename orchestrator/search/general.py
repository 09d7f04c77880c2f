"""Algorithm 1 (section 4.2): reward-guided search at any granularity.

Beam search is its chunk case. Granularities are token, chunk and response; sentences would need
token ids at which sampling stops, which a SampleRequest does not have. Knows no tokenizer.
"""

import asyncio
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from orchestrator.records import Response
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem, best_finished, ranked

Granularity = Literal["token", "chunk", "response"]


@dataclass(frozen=True)
class GeneralParameters:
    """Algorithm 1's inputs, each count at least 1.

    ``sequences`` is N, how many are kept; ``candidates`` is K, drawn from each of them;
    ``chunk`` is in tokens and is read for granularity ``chunk`` only.
    """

    granularity: Granularity = "chunk"
    sequences: int = 8
    candidates: int = 8
    chunk: int = 30


async def general_search(
    problem: Problem, policy: Policy, reward: Reward, parameters: GeneralParameters
) -> Response:
    """The best of the N return sequences of Algorithm 1."""
    lengths: dict[Granularity, int] = {
        "token": 1, "chunk": parameters.chunk, "response": problem.max_new_tokens,
    }  # fmt: skip
    search = KeepTheBest(
        problem=problem,
        ask=Ledger(problem, policy, reward),
        method="general",
        width=parameters.sequences,
        candidates=parameters.candidates,
        length=lengths[parameters.granularity],
    )
    return await search.run()


@dataclass(frozen=True)
class KeepTheBest:
    """Expand, score, select: ``width`` sequences kept, ``candidates`` pieces drawn from each.

    A piece is at most ``length`` tokens. Random streams are keyed by (seed, prompt id, ``method``,
    step, index of the kept sequence, index of the candidate).
    """

    problem: Problem
    ask: Ledger
    method: str
    width: int
    candidates: int
    length: int

    async def run(self) -> Response:
        """Returns the best finished sequence or, where none finished in time, the best of all.

        Finished sequences stay and compete for the places with the newly grown. Candidates of an
        earlier kept sequence come earlier, which decides ties. Equal sequences are not merged.
        """
        # The first sequences are equal, all empty: one request draws the candidates of every one.
        keys = chain.from_iterable(self._keys(0, index) for index in range(self.width))
        pool = await self._expand(Candidate(), tuple(keys))
        kept = ranked(pool)[: self.width]
        step = 1
        while any(self.problem.room(sequence) for sequence in kept):
            pools = await asyncio.gather(
                *(self._expand(kept[i], self._keys(step, i)) for i in range(len(kept)))
            )
            kept = ranked(chain.from_iterable(pools))[: self.width]
            step += 1
        return self.ask.response(best_finished(kept))

    def _keys(self, step: int, index: int) -> tuple[int, ...]:
        return tuple(
            self.problem.key(self.method, step, index, candidate)
            for candidate in range(self.candidates)
        )

    async def _expand(self, sequence: Candidate, keys: tuple[int, ...]) -> list[Candidate]:
        """The scored candidates of one kept sequence: itself, if it cannot grow."""
        room = self.problem.room(sequence)
        if not room:
            return [sequence]
        pieces = await self.ask.sample(sequence.token_ids, keys, min(self.length, room))
        extensions = tuple(piece.token_ids for piece in pieces)
        scores = await self.ask.score(sequence.token_ids, extensions)
        scored = zip(pieces, scores, strict=True)
        return [sequence.extended(piece, score) for piece, score in scored]
