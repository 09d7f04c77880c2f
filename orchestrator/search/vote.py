"""Majority vote and weighted best-of-N (design, section 2): which answer N samples stand for.

The samples are those of best-of-N; answers come from a task's own extraction (of GSM8K:
``data.gsm8k.extract_answer`` of each sample's text). Knows no engine, text or task.
"""

import math
from collections.abc import Sequence

from scipy.special import expit


def weighted_choice(
    answers: Sequence[str | None],
    scores: Sequence[float] | None = None,
    *,
    probabilities: bool = False,
) -> int:
    """The index of the best response of the answer with the largest summed weight.

    A response's weight is 1 without ``scores`` (majority vote), else sigma(score) (weighted
    best-of-N): rewards are unbounded and known up to a shift only, and a sum of such would favour
    or punish an answer for being frequent. Scores that are ``probabilities`` weigh as they are.
    Answers are the same where their texts are; None is no answer, and wins only where all are None.

    Ties: the answer whose best response scores higher, then the one that comes earlier. The best
    response of an answer is that of the highest score, then the earlier one.

    Raises:
        ValueError: no answers, another number of scores, or a score that is NaN.
    """
    if not answers:
        raise ValueError("a vote without answers")
    if scores is not None and (len(scores) != len(answers) or any(map(math.isnan, scores))):
        raise ValueError(f"{len(answers)} answers need as many scores, none NaN: {list(scores)}")
    ranks = [0.0] * len(answers) if scores is None else list(scores)
    weights = [1.0] * len(answers)
    if scores is not None:
        weights = ranks if probabilities else [float(expit(score)) for score in scores]
    groups: dict[str | None, list[int]] = {}
    for i, answer in enumerate(answers):
        groups.setdefault(answer, []).append(i)
    if len(groups) > 1:
        groups.pop(None, None)

    def standing(group: list[int]) -> tuple[float, float, int]:
        # The exact sum: the order of the samples decides nothing.
        total = math.fsum(weights[i] for i in group)
        return total, max(ranks[i] for i in group), -group[0]

    winner = max(groups.values(), key=standing)
    return max(winner, key=lambda i: ranks[i])
