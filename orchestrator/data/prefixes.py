"""The prefixes of a response to score: parsed from an option, as token counts for a row.

The truncations of section 4.1.1 (TLT, SST), and others for finished responses. Pure functions: the
caller provides the ends of steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.data.truncation import stochastic_cuts

PAPER_SST_K = 5
VALID = (
    "whole (the whole response alone), tlt (every prefix), sst or sst:K (random lengths, K on"
    " average), steps (where steps end), every:N (each N tokens and the whole), or lengths in"
    " tokens such as 5,10,20"
)
Kind = Literal["whole", "sst", "steps", "every", "lengths"]


@dataclass(frozen=True)
class Prefixes:
    """A choice of prefixes.

    Attributes:
        kind: kind of the choice.
        numbers: K of ``sst``, N of ``every``, the token counts of ``lengths``.
    """

    kind: Kind
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Prefixes":
        """Parse a user's option.

        Raises:
            ValueError: it is not valid; the message lists the valid forms.
        """
        name, _, argument = text.strip().partition(":")
        if text.strip() in ("whole", "steps"):
            return cls("whole" if name == "whole" else "steps")
        if text.strip() == "tlt":
            return cls("every", (1,))
        if text.strip() == "sst":
            return cls("sst", (PAPER_SST_K,))
        if name in ("sst", "every") and argument:
            return cls("sst" if name == "sst" else "every", _counts(text, [argument]))
        return cls("lengths", _counts(text, text.split(",")))

    def cuts(
        self,
        length: int,
        longest: int,
        step_ends: Callable[[], Sequence[int]],
        seed: int,
        row_id: str,
    ) -> list[int]:
        """Return token counts t of prefixes y_<t of a response: ascending, distinct, at most |y|.

        Only SST may return none.

        Args:
            length: |y|, at least 1.
            longest: T = max(|y_w|, |y_l|) of a pair, else |y|; SST draws from 1..T.
            step_ends: returns the token counts at which complete steps end; called only if needed.
            seed: seed of SST's draw.
            row_id: row id, which with ``seed`` decides SST's draw.
        """
        if self.kind == "sst":
            drawn = stochastic_cuts(longest, self.numbers[0], seed, row_id)
        elif self.kind == "steps":
            drawn = [*step_ends(), length]
        elif self.kind == "every":
            drawn = [*range(self.numbers[0], length, self.numbers[0]), length]
        else:
            drawn = list(self.numbers) or [length]
        return sorted({min(t, length) for t in drawn})


def _counts(text: str, numbers: Sequence[str]) -> tuple[int, ...]:
    counts = [int(number) if number.strip().isdecimal() else 0 for number in numbers]
    if not all(counts):
        raise ValueError(f"{text!r}; valid: {VALID}")
    return tuple(counts)
