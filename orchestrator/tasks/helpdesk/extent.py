"""Number and length of the world's prompts, and the number that a sweep needs."""

from collections.abc import Sequence

from orchestrator.tasks.helpdesk.words import ANGRY, CALM, DIGITS, NAMES, PARTS, VERBS

SPARE = 1.02  # factor for prompts of pairs: if both samples are equal, a prompt gives no pair
# NAME writes : order DIGIT DIGIT DIGIT . my PRODUCT PROBLEM . i am MOOD .
SHORTEST_PROMPT = 16
# The same with: my PRODUCT is fine .
LONGEST_PROMPT = SHORTEST_PROMPT + 5  # words
# <user> prompt <end> <agent>
TEMPLATE_TOKENS = 3
_ORDERS = len(DIGITS) ** 3
_SECOND = 2 * (len(PARTS) - 1)  # another product, named before or after
DIFFERENT_PROMPTS = (
    len(NAMES) * _ORDERS * len((*ANGRY, *CALM)) * len(PARTS) * len(VERBS) * (1 + _SECOND)
)


def prompt_counts(demonstrations: int, pairs: Sequence[int], test: int) -> list[int]:
    """Return the number of prompts of each split: demonstrations, pairs of each kind, test."""
    return [demonstrations, *(round(count * SPARE) for count in pairs), test]
