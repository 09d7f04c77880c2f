"""Diverse verifier tree search (DVTS, search-and-learn: Beeching et al. 2024).

N subtrees grow independently, each greedily in the reward, so that one branch that the reward model
likes early cannot push out all others.
"""

from dataclasses import dataclass, replace

from orchestrator.search.general import Pieces, equal_beginnings, expanded
from orchestrator.search.ledger import Ledger
from orchestrator.search.state import State


@dataclass(frozen=True)
class DvtsParameters:
    """N ``subtrees``, K ``candidates`` a step in each; a step ends with ``delimiter``."""

    subtrees: int = 4
    candidates: int = 4
    delimiter: str = "\n"


async def begin_dvts(ask: Ledger, parameters: DvtsParameters) -> State:
    """N subtrees, all of them empty; candidate i is subtree i's from here on."""
    return equal_beginnings(parameters.subtrees)


async def dvts_step(ask: Ledger, state: State, parameters: DvtsParameters) -> State:
    """From each subtree's candidate K steps, of which the best by reward is kept."""
    pieces = Pieces("dvts", parameters.candidates, stops=(parameters.delimiter,))
    kept = [ask.select(pool, 1)[0] for pool in await expanded(ask, state, pieces)]
    return replace(state, candidates=tuple(kept))
