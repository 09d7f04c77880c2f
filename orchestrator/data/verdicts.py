"""The preferred response of a row: by ranks, ratings, arena votes, or a label.

Whether a higher or a lower value is better follows the public data sets. A row without a preference
is a ``BadRow``.
"""

from collections.abc import Callable, Mapping, Sequence

from orchestrator.data.rejects import BadRow, field
from orchestrator.data.rows import Row

Sides = tuple[tuple[str, str], Callable[[Row], int]]

SCORES = ("score", "rating", "overall_score")  # fields of a ranked completion; higher is better
RATINGS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("rating_chosen", "rating_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
WINNERS = {"model_a": 0, "model_b": 1}
TIES = ("tie", "tie (bothbad)", "both_bad")

VOTES = ("winner_model_a", "winner_model_b", "winner_tie")

TIE = "tie"
REVERSED = "the rejected one is rated higher"
NO_WINNER = (
    "no single winner, valid is 1 in exactly one of winner_model_a, winner_model_b, winner_tie and"
    f" 0 in the others, or winner = {', '.join((*WINNERS, *TIES))}"
)
NO_ORDER = (
    "completions without an order, valid is all of them with rank (lower is better), or all with"
    f" {' or '.join(SCORES)} (higher is better)"
)


def ranks(listed: Sequence[Mapping[str, object]]) -> list[float]:
    """Return the rank of each completion; lower is better."""
    for name in ("rank", *SCORES):
        if all(item.get(name) is not None for item in listed):
            sign = 1 if name == "rank" else -1
            return [sign * _number(f"completions {name}", item[name]) for item in listed]
    raise BadRow(NO_ORDER)


def check_rating(row: Row) -> None:
    """Raise BadRow if a row's ratings say that its chosen response is not the better one."""
    if row.get("winner_tie"):
        raise BadRow(TIE)
    for names in RATINGS:
        if any(row.get(name) is not None for name in names):
            chosen, rejected = (_number(name, field(row, name)) for name in names)
            if chosen == rejected:
                raise BadRow(TIE)
            if chosen < rejected:
                raise BadRow(REVERSED)


def _arena(row: Row) -> int:
    """Return the winner of an arena's two responses (LMSYS: three 0/1 columns, or ``winner``)."""
    winner = row.get("winner")
    if isinstance(winner, str):
        if winner in TIES:
            raise BadRow(TIE)
        if winner not in WINNERS:
            raise BadRow(NO_WINNER)
        return WINNERS[winner]
    won = [row.get(name) or 0 for name in VOTES]
    if won.count(1) != 1 or won.count(0) != 2:  # True is 1, 1.0 too
        raise BadRow(NO_WINNER)
    if won[2]:
        raise BadRow(TIE)
    return won.index(1)


def _strength(name: str) -> Callable[[Row], int]:
    """Return HelpSteer's rule: below zero the first response is preferred, above the second."""

    def preferred(row: Row) -> int:
        strength = _number(name, field(row, name))
        if strength == 0:
            raise BadRow(TIE)
        return int(strength > 0)

    return preferred


def _label(row: Row) -> int:
    """Return the preference of SHP: ``labels`` is 1 if A is preferred, 0 if B is."""
    label = _number("labels", field(row, "labels"))
    if label not in (0, 1):
        raise BadRow("labels is neither 0 nor 1")
    return 1 - int(label)


def _number(name: str, value: object) -> float:
    # An integer may be too large for a float; NaN is not equal to itself.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise BadRow(f"wrong type: {name} is not a number")
    return value


# Fields that may say which response is preferred.
VERDICTS = ("winner", *VOTES, "preference_strength", "overall_preference", "labels",
            *(name for names in RATINGS for name in names))  # fmt: skip
# Pairs of response fields, and the function of their preference.
SIDES: tuple[Sides, ...] = (
    (("response_a", "response_b"), _arena),
    (("conversation_a", "conversation_b"), _arena),
    (("response_1", "response_2"), _strength("preference_strength")),
    (("response1", "response2"), _strength("overall_preference")),
    (("human_ref_A", "human_ref_B"), _label),
)
