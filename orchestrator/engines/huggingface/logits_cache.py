"""A cache of next-token logits: a rejected segment is sampled again from the same logits."""

from collections import OrderedDict

from torch import Tensor

from orchestrator.search.engines import Ids

MEMORY_MIB = 64


class LogitsCache:
    """Next-token logits (V,) by context, with least-recently-used eviction.

    Args:
        memory_mib: limit.
    """

    def __init__(self, memory_mib: int = MEMORY_MIB) -> None:
        self._memory = memory_mib * 2**20
        self._logits: OrderedDict[Ids, Tensor] = OrderedDict()

    def get(self, context: Ids) -> Tensor | None:
        """Return the logits after a context, if they are cached."""
        if context in self._logits:
            self._logits.move_to_end(context)
        return self._logits.get(context)

    def put(self, context: Ids, logits: Tensor) -> None:
        """Cache a copy of logits (V,), so that the batch they belong to is not kept alive."""
        if context in self._logits:
            return
        self._logits[context] = logits.clone()
        while len(self._logits) * logits.nbytes > self._memory:
            self._logits.popitem(last=False)
