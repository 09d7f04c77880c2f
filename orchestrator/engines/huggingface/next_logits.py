"""The logits behind texts: a segment that was refused is drawn again from the same ones."""

from collections import OrderedDict

from torch import Tensor

from orchestrator.search.engines import Ids

MEMORY_MIB = 64


class NextLogits:
    """Next-token logits (V,) by text; those that were longest not asked for are forgotten.

    Args:
        memory_mib: of what is kept.
    """

    def __init__(self, memory_mib: int = MEMORY_MIB) -> None:
        self._memory = memory_mib * 2**20
        self._kept: OrderedDict[Ids, Tensor] = OrderedDict()

    def of(self, text: Ids) -> Tensor | None:
        """The logits behind a text, if they are known."""
        if text in self._kept:
            self._kept.move_to_end(text)
        return self._kept.get(text)

    def keep(self, text: Ids, logits: Tensor) -> None:
        """Keeps logits (V,), a copy: the batch they are of is not held."""
        if text in self._kept:
            return
        self._kept[text] = logits.clone()
        while len(self._kept) * logits.nbytes > self._memory:
            self._kept.popitem(last=False)
