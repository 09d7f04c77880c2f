"""The step that beam searches share: draw pieces of each sequence, score them, keep the best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import SampleRequest
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import SearchState


@dataclass(frozen=True)
class Pieces:
    """What is drawn from a sequence: ``count`` pieces, each to the response's end at most.

    A piece is no longer than ``length`` tokens and ends with one of the texts ``stops``. Random
    streams are keyed by (seed, prompt id, ``method``, step, index of the sequence, index of the
    piece).
    """

    method: str
    count: int
    length: int | None = None
    stops: tuple[str, ...] = ()


def empty_candidates(count: int) -> SearchState:
    """Return a state of ``count`` empty candidates."""
    return SearchState((Candidate(),) * count)


async def keep_best(
    client: MeteredClient, state: SearchState, pieces: Pieces, width: int
) -> SearchState:
    """Expand, score, select: of all sequences with all their pieces keep the best ``width``.

    Finished sequences stay and compete with those that have grown. Of equal scores the candidate
    of the earlier sequence wins. Equal sequences are not merged.
    """
    expanded = await expand(client, state, pieces)
    return replace(state, candidates=client.select(chain.from_iterable(expanded), width))


async def expand(
    client: MeteredClient, state: SearchState, pieces: Pieces
) -> list[list[Candidate]]:
    """Return the scored candidates of each sequence: itself alone, if it cannot grow.

    Pieces of equal sequences are drawn by one request, which reads them once.
    """
    expanded = [[sequence] for sequence in state.candidates]
    indices_of: dict[Candidate, list[int]] = {}
    for index, sequence in enumerate(state.candidates):
        if client.problem.room(sequence):
            indices_of.setdefault(sequence, []).append(index)
    drawn = await client.sample_each(
        [
            _request(client.problem, state.step, sequence, indices, pieces)
            for sequence, indices in indices_of.items()
        ]
    )
    prefixes = [sequence.token_ids for sequence in indices_of]
    scores = await client.score_each(list(zip(prefixes, drawn, strict=True)))
    for (sequence, indices), continuations, rewards in zip(
        indices_of.items(), drawn, scores, strict=True
    ):
        candidates = [
            sequence.extended(continuation, reward)
            for continuation, reward in zip(continuations, rewards, strict=True)
        ]
        for number, index in enumerate(indices):
            expanded[index] = candidates[number * pieces.count : (number + 1) * pieces.count]
    return expanded


def _request(
    problem: Problem, step: int, sequence: Candidate, indices: Sequence[int], pieces: Pieces
) -> SampleRequest:
    """Return the request for ``count`` pieces for each of the indices that hold the sequence."""
    room = problem.room(sequence)
    keys = tuple(
        problem.key(pieces.method, step, index, number)
        for index in indices
        for number in range(pieces.count)
    )
    length = min(pieces.length or room, room)
    return SampleRequest(problem.prompt_ids, sequence.token_ids, keys, length, stops=pieces.stops)
