"""Packed sequences: a prompt, its responses, and branches at whose ends scores are read.

The trunk of a response is the prompt and the response. A branch is a few tokens (the template's
closing suffix, or a candidate chunk with it) that attend to the trunk up to where they are attached
and to themselves, with the positions that follow from there. A branch without tokens is *open*
scoring: its score is read at the trunk's own token. Every score equals that of a separate forward
pass over prompt, prefix and branch. Independent of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

Ids = tuple[int, ...]
TRUNK, PADDING = -1, -2  # values of ``Tokens.branch`` that are not a branch's number


@dataclass(frozen=True)
class Branch:
    """A score to read after the prompt, ``attach`` tokens of a response, and ``token_ids``."""

    attach: int
    token_ids: Ids = ()
    response: int = 0


@dataclass(frozen=True)
class PackedRow:
    """A prompt, its responses and branches. Scores are in the order of ``branches``."""

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    branches: tuple[Branch, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens that scoring the row computes, its prompt once."""
        trunk = len(self.prompt_ids) + sum(map(len, self.responses))
        return trunk + sum(len(branch.token_ids) for branch in self.branches)

    @property
    def longest(self) -> int:
        """Tokens of the longest scored sequence: prompt, prefix and branch."""
        ends = (branch.attach + len(branch.token_ids) for branch in self.branches)
        return len(self.prompt_ids) + max(ends, default=0)


@dataclass(frozen=True)
class Tokens:
    """Tokens of N responses, padded on the right to T: each field (N, T) int64.

    ``position`` counts from the prompt's first token. ``reach`` is how many tokens of its trunk a
    token attends to. ``branch`` is the number of its branch, TRUNK or PADDING.
    """

    ids: Tensor
    position: Tensor
    reach: Tensor
    branch: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(N, T)."""
        return self.ids.shape[0], self.ids.shape[1]

    def to(self, device: torch.device | str) -> "Tokens":
        """Return the tokens on another device."""
        return Tokens(*(getattr(self, field.name).to(device) for field in fields(self)))

    def rows(self, index: Tensor) -> "Tokens":
        """Return some rows, possibly repeated: ``index`` (N',) int64."""
        return Tokens(*(getattr(self, field.name)[index] for field in fields(self)))

    def at(self, columns: Tensor) -> "Tokens":
        """Return the tokens at ``columns`` (N, C) int64; -1 is padding."""
        values = (getattr(self, field.name) for field in fields(self))
        gathered = Tokens(*(value.gather(1, columns.clamp(min=0)) for value in values))
        return replace(gathered, branch=gathered.branch.masked_fill(columns < 0, PADDING))


def prefix_row(
    prompt_ids: Ids, responses: Sequence[Ids], cuts: Sequence[Sequence[int]], closing_ids: Ids
) -> PackedRow:
    """Return the row whose scores are r(x, y_<t) for each t of ``cuts[i]``, response by response.

    Args:
        prompt_ids: x.
        responses: y.
        cuts: cuts of each response, in tokens; t > |y| means the full y.
        closing_ids: the closing suffix for *closed* scoring, empty for *open* scoring.
    """
    branches = tuple(
        Branch(min(t, len(response)), closing_ids, number)
        for number, (response, response_cuts) in enumerate(zip(responses, cuts, strict=True))
        for t in response_cuts
    )
    return PackedRow(prompt_ids, tuple(responses), branches)


def trunk_tokens(sequences: Sequence[Ids], starts: Sequence[int], pad_id: int) -> Tokens:
    """Return parts of trunks as tokens: sequence i from position ``starts[i]`` on, padded."""
    pairs = zip(sequences, starts, strict=True)
    return _padded([_span(ids, start, None, TRUNK) for ids, start in pairs], pad_id)


def branch_tokens(
    rows: Sequence[PackedRow], chosen: Sequence[Sequence[int]], pad_id: int
) -> Tokens:
    """Return the tokens of the branches ``chosen[i]`` (by number) of each row, concatenated."""
    rows_of_spans = []
    for row, numbers in zip(rows, chosen, strict=True):
        spans = [np.zeros((4, 0), np.int64)]
        for number in numbers:
            branch = row.branches[number]
            start = len(row.prompt_ids) + branch.attach
            spans.append(_span(branch.token_ids, start, start, number))
        rows_of_spans.append(np.concatenate(spans, 1))
    return _padded(rows_of_spans, pad_id)


def joined(first: Tokens, second: Tokens) -> Tokens:
    """Return both, concatenated along T."""
    pairs = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(Tokens))
    return Tokens(*(torch.cat(pair, 1) for pair in pairs))


def visible(queries: Tokens, keys: Tokens, window: int | None = None) -> Tensor:
    """Return the block mask (N, Tq, Tk) bool: which key each query attends to.

    Args:
        queries: the last tokens of ``keys``.
        keys: trunk, branches and padding.
        window: size of a sliding-window layer, in positions, the query's own included.
    """
    size, width = queries.shape[1], keys.shape[1]
    query_column = torch.arange(width - size, width, device=queries.ids.device)[:, None]
    key_column = torch.arange(width, device=queries.ids.device)
    trunk = (keys.branch == TRUNK)[:, None] & (keys.position[:, None] < queries.reach[..., None])
    same = (queries.branch[..., None] == keys.branch[:, None]) & (keys.branch >= 0)[:, None]
    mask = trunk | (same & (key_column <= query_column))
    if window is not None:
        mask &= queries.position[..., None] - keys.position[:, None] < window
    # Padding attends to itself: a softmax over nothing is NaN.
    return mask | (key_column == query_column)


def _span(ids: Ids, start: int, reach: int | None, branch: int) -> np.ndarray:
    """Return (4, T), in the order of the fields of Tokens."""
    span = np.empty((4, len(ids)), np.int64)
    span[0], span[1], span[3] = ids, start + np.arange(len(ids)), branch
    span[2] = span[1] + 1 if reach is None else reach
    return span


def _padded(rows: Sequence[np.ndarray], pad_id: int) -> Tokens:
    width = max(row.shape[1] for row in rows)
    filler = np.array([pad_id, 0, 0, PADDING])[:, None]
    stacked = np.stack(
        [np.concatenate([row, filler.repeat(width - row.shape[1], 1)], 1) for row in rows]
    )
    return Tokens(*torch.from_numpy(stacked).unbind(1))
