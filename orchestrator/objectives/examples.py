"""Training rows as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

Ids = tuple[int, ...]


@dataclass(frozen=True)
class TextExample:
    """A demonstration; the loss is over ``response_ids``, which end with the end token."""

    prompt_ids: Ids
    response_ids: Ids

    @property
    def size(self) -> int:
        """What the row counts in a batch."""
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class PairExample:
    """A preference pair with its partial pairs: two cuts (in tokens) and a weight w of each.

    The two cuts of a partial pair are the same t, except with the official preset, which counts
    words. A row of the ORM has one partial pair of weight 1, the full responses (Eq. 1).
    """

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    chosen_cuts: tuple[int, ...]
    rejected_cuts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of partial pairs: what the row counts in a batch."""
        return len(self.weights)

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and both responses."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class ImplicitExample:
    """Responses to one prompt with labels; a preference pair is two with (True, False).

    Attributes:
        prompt_ids: the prompt as the policy reads it.
        responses: token ids of each response with its end token.
        labels: True for a right (chosen) response.
        reference_log_probs: log pi_ref of each response with its end token, in nats.
        unrelated_ids: a response to another prompt, for the KL term of KTO; () if there is none.
        unrelated_reference_log_prob: log pi_ref of that response to this prompt, in nats.
    """

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    labels: tuple[bool, ...]
    reference_log_probs: tuple[float, ...]
    unrelated_ids: Ids = ()
    unrelated_reference_log_prob: float = 0.0

    @property
    def size(self) -> int:
        """What the row counts in a batch."""
        return 1

    @property
    def tokens(self) -> int:
        """Padded tokens of the row: every response follows the prompt."""
        longest = max(len(ids) for ids in (*self.responses, self.unrelated_ids))
        return len(self.responses) * (len(self.prompt_ids) + longest)


Example = TextExample | PairExample | ImplicitExample


def with_unrelated(rows: Sequence[ImplicitExample]) -> list[ImplicitExample]:
    """Return the rows, each with the first response of the next row that has another prompt.

    The row after the last is the first. So the result depends on the order of the data, not on
    batches. ``unrelated_reference_log_prob`` is NaN until it is computed.

    Raises:
        ValueError: all rows have the same prompt.
    """
    if len({row.prompt_ids for row in rows}) < 2:
        raise ValueError("an unrelated response needs rows of at least two different prompts")
    extended: list[ImplicitExample] = []
    last, follower = rows[0], next(row for row in rows if row.prompt_ids != rows[0].prompt_ids)
    for row in reversed(rows):
        if row.prompt_ids != last.prompt_ids:
            follower = last
        unrelated = follower.responses[0]
        extended.append(
            replace(row, unrelated_ids=unrelated, unrelated_reference_log_prob=float("nan"))
        )
        last = row
    return extended[::-1]
