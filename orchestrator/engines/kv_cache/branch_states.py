"""Keys and values of branches: candidates computed after a trunk, until one of them is chosen."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.engines.kv_cache.row_storage import LayerKV
from orchestrator.rewards.packed import Ids


@dataclass(eq=False)
class ForwardStates:
    """Keys and values of one forward, layers of (N, H, Tq, D), and the trunks of its branches."""

    layers: Sequence[LayerKV]
    nbytes: int
    trunks: list[Ids]


@dataclass(eq=False)
class _BranchRow:
    """Branches of one trunk: in a row of ``states``, each from its start column on."""

    states: ForwardStates
    row: int
    starts: dict[Ids, int]


@dataclass(frozen=True)
class Branch:
    """One branch: ``count`` tokens in a row of ``states`` from column ``start`` on."""

    states: ForwardStates
    row: int
    start: int
    count: int


class BranchStates:
    """The branches of the latest forwards.

    Args:
        memory: limit in bytes; the latest forward is kept even if it exceeds the limit.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._branches: dict[Ids, list[_BranchRow]] = {}  # keyed by trunk
        self._forwards: OrderedDict[int, ForwardStates] = OrderedDict()
        self._nbytes = 0

    def add(
        self,
        trunks: Sequence[Ids],
        branches: Sequence[Sequence[tuple[Ids, int]]],
        new: Sequence[LayerKV],
    ) -> None:
        """Keep the branches of each trunk: (tokens, start column) in row i of ``new``."""
        states = ForwardStates(new, sum(part.nbytes for pair in new for part in pair), [])
        for row, (trunk, row_branches) in enumerate(zip(trunks, branches, strict=True)):
            if starts := {ids: start for ids, start in row_branches if ids}:
                self._branches.setdefault(trunk, []).append(_BranchRow(states, row, starts))
                states.trunks.append(trunk)
        if not states.trunks:
            return
        self._forwards[id(states)] = states
        self._nbytes += states.nbytes
        while len(self._forwards) > 1 and self._nbytes > self._memory:
            _, oldest = self._forwards.popitem(last=False)
            self._nbytes -= oldest.nbytes
            for trunk in oldest.trunks:
                remaining = [b for b in self._branches.pop(trunk, ()) if b.states is not oldest]
                if remaining:
                    self._branches[trunk] = remaining

    def longest_match(self, trunk: Ids, continuation: Ids) -> Branch | None:
        """Return the longest branch of ``trunk`` that ``continuation`` begins with."""
        branch_rows = self._branches.get(trunk, ())
        for count in range(len(continuation), 0, -1) if branch_rows else ():
            for branch_row in branch_rows:
                start = branch_row.starts.get(continuation[:count])
                if start is not None:
                    return Branch(branch_row.states, branch_row.row, start, count)
        return None
