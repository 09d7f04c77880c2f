"""Algorithm 1 (section 4.2): reward-guided search at any granularity.

Beam search is its chunk case. Knows no tokenizer: where a sentence or a step ends is for the policy
engine to see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from orchestrator.search.engines import SampleRequest
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.state import State

Granularity = Literal["token", "chunk", "sentence", "step", "response"]
SENTENCE_ENDS = (".", "!", "?", "\n")  # a stop within a number ends a piece too, and does no harm


@dataclass(frozen=True)
class GeneralParameters:
    """Algorithm 1's inputs, each count at least 1.

    ``sequences`` is N, how many are kept; ``candidates`` is K, drawn from each of them; ``chunk``,
    in tokens, is read for granularity ``chunk`` only, ``delimiter`` for ``step`` only.
    """

    granularity: Granularity = "chunk"
    sequences: int = 8
    candidates: int = 8
    chunk: int = 30
    delimiter: str = "\n"


async def begin_general(ask: Ledger, parameters: GeneralParameters) -> State:
    """N return sequences, all of them empty."""
    return equal_beginnings(parameters.sequences)


async def general_step(ask: Ledger, state: State, parameters: GeneralParameters) -> State:
    """Lines 5 to 10 of Algorithm 1: K pieces of each sequence, the best N of all are kept."""
    name, count = "general", parameters.candidates
    pieces: dict[Granularity, Pieces] = {
        "token": Pieces(name, count, 1),
        "chunk": Pieces(name, count, parameters.chunk),
        "sentence": Pieces(name, count, stops=SENTENCE_ENDS),
        "step": Pieces(name, count, stops=(parameters.delimiter,)),
        "response": Pieces(name, count),
    }
    return await keep_the_best(ask, state, pieces[parameters.granularity], parameters.sequences)


@dataclass(frozen=True)
class Pieces:
    """What is drawn from a sequence: ``count`` pieces, each to the response's end at most.

    A piece is no longer than ``length`` tokens and ends with a text of ``stops``. Random streams
    are keyed by (seed, prompt id, ``method``, step, index of the sequence, index of the piece).
    """

    method: str
    count: int
    length: int | None = None
    stops: tuple[str, ...] = ()


def equal_beginnings(count: int) -> State:
    """So many candidates, all of them empty."""
    return State((Candidate(),) * count)


async def keep_the_best(ask: Ledger, state: State, pieces: Pieces, width: int) -> State:
    """Expand, score, select: of all sequences with all their pieces the best ``width``.

    Finished sequences stay and compete for the places with the newly grown. Candidates of an
    earlier kept sequence come earlier, which decides ties. Equal sequences are not merged.
    """
    pools = await expanded(ask, state, pieces)
    return replace(state, candidates=ask.select(chain.from_iterable(pools), width))


async def expanded(ask: Ledger, state: State, pieces: Pieces) -> list[list[Candidate]]:
    """The scored candidates of each sequence: itself alone, if it cannot grow.

    Equal sequences are asked about together: they are read once.
    """
    pools = [[sequence] for sequence in state.candidates]
    equal: dict[Candidate, list[int]] = {}
    for place, sequence in enumerate(state.candidates):
        if ask.problem.room(sequence):
            equal.setdefault(sequence, []).append(place)
    drawn = await ask.sample_each(
        [_request(ask.problem, state.step, *own, pieces) for own in equal.items()]
    )
    prefixes = [sequence.token_ids for sequence in equal]
    scores = await ask.score_each(list(zip(prefixes, drawn, strict=True)))
    for (sequence, places), own, values in zip(equal.items(), drawn, scores, strict=True):
        grown = [sequence.extended(piece, value) for piece, value in zip(own, values, strict=True)]
        share = len(grown) // len(places)
        for number, place in enumerate(places):
            pools[place] = grown[number * share : (number + 1) * share]
    return pools


def _request(
    problem: Problem, step: int, sequence: Candidate, places: Sequence[int], pieces: Pieces
) -> SampleRequest:
    """The pieces of a sequence, as many for each of the places that it has."""
    room = problem.room(sequence)
    keys = tuple(
        problem.key(pieces.method, step, place, number)
        for place in places
        for number in range(pieces.count)
    )
    length = min(pieces.length or room, room)
    return SampleRequest(problem.prompt_ids, sequence.token_ids, keys, length, stops=pieces.stops)
