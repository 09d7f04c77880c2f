"""Which prefixes of a response are scored: named on a command line, as token counts for a row.

The truncations of section 4.1.1 (TLT, SST), and others that one may want of a finished response.
Pure: the ends of steps are the caller's to find.
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
    """A way to cut responses.

    Attributes:
        kind: which.
        numbers: of ``sst`` its K, of ``every`` its N, of ``lengths`` the token counts.
    """

    kind: Kind
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Prefixes":
        """What a user wrote.

        Raises:
            ValueError: it is none of the ways; the message says which there are.
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
        """Token counts t of the prefixes y_<t of one response: rising, each once, at most |y|.

        Only SST's can be none at all.

        Args:
            length: |y|, at least 1.
            longest: T = max(|y_w|, |y_l|) of a pair, else |y|; SST draws from 1..T.
            step_ends: token counts with which a complete step ends; asked where it is needed.
            seed: of SST's draw.
            row_id: of SST's draw, which depends on nothing else of the row.
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


def _counts(text: str, parts: Sequence[str]) -> tuple[int, ...]:
    found = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    if not all(found):
        raise ValueError(f"{text!r}; valid: {VALID}")
    return tuple(found)
