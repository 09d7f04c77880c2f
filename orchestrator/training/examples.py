"""Training rows as token ids."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A row of supervised fine-tuning: the loss is over ``response_ids``, closing included."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]

    @property
    def size(self) -> int:
        """What a row counts for in a batch."""
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class PairExample:
    """A preference pair with its partial pairs: where each response is cut (tokens), a weight w.

    The two cuts of a partial pair are the same t, but for the official preset, which counts words.
    An ORM's row has one cut at the whole length, weight 1 (Eq. 1).
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_cuts: tuple[int, ...]
    rejected_cuts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def size(self) -> int:
        """Partial pairs of the row: what it counts for in a batch."""
        return len(self.weights)

    @property
    def tokens(self) -> int:
        """Tokens of prompt and responses, the prompt once."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)
