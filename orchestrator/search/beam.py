"""Chunk-level and token-level beam search, CBS and TBS (Algorithm 3, Zhou et al. 2024).

Both are Algorithm 1 with W sequences kept, in chunks of L tokens or of one.
"""

from dataclasses import dataclass

from orchestrator.records import Response
from orchestrator.search.engines import Policy, Reward
from orchestrator.search.general import KeepTheBest
from orchestrator.search.ledger import Ledger
from orchestrator.search.problem import Problem


@dataclass(frozen=True)
class BeamParameters:
    """W ``beams``, K ``candidates`` of each, ``chunk`` of L tokens; each at least 1.

    The paper's (C.5): 8, 8 and 30; L = 1 is TBS.
    """

    beams: int = 8
    candidates: int = 8
    chunk: int = 30


async def beam_search(
    problem: Problem, policy: Policy, reward: Reward, parameters: BeamParameters
) -> Response:
    """From each of W beams K chunks of L tokens; the best W by reward are kept.

    Finished beams stay and compete. The answer is the best finished beam or, where none finished
    within the problem's length, the best one.
    """
    search = KeepTheBest(
        problem=problem,
        ask=Ledger(problem, policy, reward),
        method="tbs" if parameters.chunk == 1 else "cbs",
        width=parameters.beams,
        candidates=parameters.candidates,
        length=parameters.chunk,
    )
    return await search.run()
