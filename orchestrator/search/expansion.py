"""The step that beam searches share: sample continuations of each sequence, score, select."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from orchestrator.search.client import MeteredClient
from orchestrator.search.engines import SampleRequest
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import SearchState


@dataclass(frozen=True)
class Expansion:
    """How a sequence is expanded: ``count`` continuations per sequence.

    Each ends at the end token, after ``length`` tokens (None: no such limit), at the response's
    token limit, or after a text in ``stops``, whichever comes first. Random streams are
    keyed by (seed, prompt id, ``method``, step, index of the sequence, index of the continuation).
    """

    method: str
    count: int
    length: int | None = None
    stops: tuple[str, ...] = ()


def empty_candidates(count: int) -> SearchState:
    """Return a state of ``count`` empty candidates."""
    return SearchState((Candidate(),) * count)


async def keep_best(
    client: MeteredClient, state: SearchState, expansion: Expansion, width: int
) -> SearchState:
    """Expand and score all sequences, and select the best ``width`` candidates.

    Finished sequences compete unchanged. Ties go to the candidate of the earlier sequence. Equal
    sequences are not merged.
    """
    expanded = await expand(client, state, expansion)
    return replace(state, candidates=client.select(chain.from_iterable(expanded), width))


async def expand(
    client: MeteredClient, state: SearchState, expansion: Expansion
) -> list[list[Candidate]]:
    """Return the scored candidates of each sequence; one that cannot grow is its only candidate.

    Equal sequences share one request, which computes their prefix once.
    """
    expanded = [[sequence] for sequence in state.candidates]
    indices_of: dict[Candidate, list[int]] = {}
    for index, sequence in enumerate(state.candidates):
        if client.problem.room(sequence):
            indices_of.setdefault(sequence, []).append(index)
    sampled = await client.sample_each(
        [
            _request(client.problem, state.step, sequence, indices, expansion)
            for sequence, indices in indices_of.items()
        ]
    )
    prefixes = [sequence.token_ids for sequence in indices_of]
    scores = await client.score_each(list(zip(prefixes, sampled, strict=True)))
    for (sequence, indices), continuations, rewards in zip(
        indices_of.items(), sampled, scores, strict=True
    ):
        candidates = [
            sequence.extended(continuation, reward)
            for continuation, reward in zip(continuations, rewards, strict=True)
        ]
        for number, index in enumerate(indices):
            expanded[index] = candidates[number * expansion.count : (number + 1) * expansion.count]
    return expanded


def _request(
    problem: Problem, step: int, sequence: Candidate, indices: Sequence[int], expansion: Expansion
) -> SampleRequest:
    """Return the request for the continuations of a sequence at all of its indices."""
    room = problem.room(sequence)
    keys = tuple(
        problem.key(expansion.method, step, index, number)
        for index in indices
        for number in range(expansion.count)
    )
    length = min(expansion.length or room, room)
    return SampleRequest(
        problem.prompt_ids, sequence.token_ids, keys, length, stops=expansion.stops
    )
