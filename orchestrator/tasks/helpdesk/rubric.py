"""The exact rubric of the help desk, defined for every prefix of a response.

Points: +1 for each distinct fitting step (up to four), -1 for a step that does not fit, -0.5 for a
repeated step, -1.5 for a rude remark, +0.7 for an apology to an angry customer and +0.2 to a calm
one, +0.5 for a warm closing. The rubric is the judge of the help desk: resolved rate, win-tie,
AR_SC-HP and AR_RM-HP are computed from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.tasks.helpdesk.words import (
    APOLOGY,
    CONNECTORS,
    PARTS,
    RUDE_REMARKS,
    VERBS,
    WARM_CLOSING,
)  # fmt: skip

STEPS_COUNTED = 4
STEPS_TO_RESOLVE = 3


@dataclass(frozen=True)
class Grade:
    """The rubric's verdict on a response or a prefix: points, and counts of steps and faults.

    A step that does not fit counts once, for its first fault.
    """

    value: float  # rubric points
    resolved: bool
    fitting: int  # distinct fitting steps
    wrong_verbs: int
    wrong_parts: int
    malformed: int
    repeats: int
    rude: int

    @property
    def faults(self) -> int:
        """Steps that do not fit, repeated steps and rude remarks."""
        misfits = self.wrong_verbs + self.wrong_parts + self.malformed
        return misfits + self.repeats + self.rude


@dataclass
class _Tally:
    fitting: set[tuple[str, str]]
    wrong_verbs: int = 0
    wrong_parts: int = 0
    malformed: int = 0
    repeats: int = 0
    rude: int = 0
    apologised: bool = False
    warm: bool = False


def grade(facts: Mapping[str, Any], response: str, finished: bool) -> Grade:
    """Grade a response, or any prefix of one.

    ``facts`` holds the prompt's ``product``, ``problem`` and ``angry``. ``finished`` is whether the
    policy ended the response; a prefix is never resolved. In a prefix, a wrong verb counts as soon
    as the verb is complete, a wrong part as soon as the part is, and a rude remark as soon as its
    last word is.
    """
    tally = _Tally(fitting=set())
    sentences = [sentence.split() for sentence in response.split(" .")]
    for index, words in enumerate(sentences):
        _read_sentence(facts, words, complete=index < len(sentences) - 1, tally=tally)
    value = (
        min(len(tally.fitting), STEPS_COUNTED)
        - (tally.wrong_verbs + tally.wrong_parts + tally.malformed)
        - 0.5 * tally.repeats
        - 1.5 * tally.rude
        + (0.7 if facts["angry"] else 0.2) * tally.apologised
        + 0.5 * tally.warm
    )
    verdict = Grade(
        float(value),
        False,
        len(tally.fitting),
        tally.wrong_verbs,
        tally.wrong_parts,
        tally.malformed,
        tally.repeats,
        tally.rude,
    )
    resolved = finished and verdict.fitting >= STEPS_TO_RESOLVE and verdict.faults == 0
    return replace(verdict, resolved=resolved)


def _read_sentence(
    facts: Mapping[str, Any], words: list[str], complete: bool, tally: _Tally
) -> None:
    if words and words[0] in CONNECTORS:
        _read_step(facts, [word for word in words[1:] if word != "please"], complete, tally)
        return
    tally.rude += any(_holds(words, remark) for remark in RUDE_REMARKS)
    tally.apologised |= _holds(words, APOLOGY)
    tally.warm |= _holds(words, WARM_CLOSING)


def _read_step(facts: Mapping[str, Any], words: list[str], complete: bool, tally: _Tally) -> None:
    """Read a step from the ``words`` after its connector: VERB the PART, possibly truncated."""
    verb = words[0] if words else None
    part = words[2] if len(words) > 2 and words[1] == "the" else None
    malformed = (complete and len(words) != 3) or len(words) > 3 or words[1:2] not in ([], ["the"])
    if verb is not None and verb not in VERBS[facts["problem"]]:
        tally.wrong_verbs += 1
    elif part is not None and part not in PARTS[facts["product"]]:
        tally.wrong_parts += 1
    elif malformed:
        tally.malformed += 1
    elif verb is not None and part is not None:
        if (verb, part) in tally.fitting:
            tally.repeats += 1
        tally.fitting.add((verb, part))


def _holds(words: list[str], phrase: tuple[str, ...]) -> bool:
    size = len(phrase)
    return any(tuple(words[i : i + size]) == phrase for i in range(len(words) - size + 1))
