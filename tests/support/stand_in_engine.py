"""An engine without a model for the process of vLLM's engines."""

import time


class StandInEngine:
    """Finishes one number per step, the smallest first; a negative number fails.

    Its arguments are those of every engine.
    """

    max_length = 9

    def __init__(self, checkpoint: str, device: str, cache_mib: int | None) -> None:
        self._active: list[int] = []
        self._steps = 0

    @property
    def busy(self) -> bool:
        return bool(self._active)

    def add(self, numbers: list[int]) -> None:
        self._active += numbers
        if 0 in numbers:
            raise ValueError("0 cannot be added")

    def step(self) -> list[int]:
        time.sleep(0.02)
        self._steps += 1
        if (smallest := min(self._active)) < 0:
            raise MemoryError(f"no memory for {smallest}")
        self._active.remove(smallest)
        return [smallest]

    def abort(self) -> None:
        self._active.clear()

    def steps(self) -> int:
        return self._steps

    def echo(self, number: int) -> int:
        if number < 0:
            raise KeyError(number)
        return number
