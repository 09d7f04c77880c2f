"""Beam search: CBS and TBS (Algorithm 3, Zhou et al. 2024), and beams over reasoning steps.

All are Algorithm 1 with W sequences kept: in chunks of L tokens, of one token, or in steps up to a
delimiter, as search-and-learn does (Beeching et al. 2024).
"""

from dataclasses import dataclass

from orchestrator.search.general import Pieces, equal_beginnings, keep_the_best
from orchestrator.search.ledger import Ledger
from orchestrator.search.state import State


@dataclass(frozen=True)
class BeamParameters:
    """W ``beams``, K ``candidates`` of each, ``chunk`` of L tokens; each at least 1.

    The paper's (C.5): 8, 8 and 30; L = 1 is TBS.
    """

    beams: int = 8
    candidates: int = 8
    chunk: int = 30


@dataclass(frozen=True)
class StepBeamParameters:
    """W ``beams``, K ``candidates`` of each; a step ends with ``delimiter``, never empty."""

    beams: int = 4
    candidates: int = 4
    delimiter: str = "\n"


async def begin_beams(ask: Ledger, parameters: BeamParameters | StepBeamParameters) -> State:
    """W beams, all of them empty."""
    return equal_beginnings(parameters.beams)


async def beam_step(ask: Ledger, state: State, parameters: BeamParameters) -> State:
    """From each of W beams K chunks of L tokens; the best W by reward are kept.

    Finished beams stay and compete.
    """
    name = "tbs" if parameters.chunk == 1 else "cbs"
    pieces = Pieces(name, parameters.candidates, parameters.chunk)
    return await keep_the_best(ask, state, pieces, parameters.beams)


async def step_beam_step(ask: Ledger, state: State, parameters: StepBeamParameters) -> State:
    """From each of W beams K steps; the best W by reward are kept. Finished beams stay."""
    pieces = Pieces("step_beam", parameters.candidates, stops=(parameters.delimiter,))
    return await keep_the_best(ask, state, pieces, parameters.beams)
