"""Packed rows: a prompt, the responses to it, and the branches at whose ends scores are read.

The trunk of a response is the prompt and the response. A branch is a few tokens (the template's
closing suffix, or a candidate chunk with it) that see the trunk up to where they are attached and
themselves, with the positions that go on from there. A branch without tokens is *open* scoring: it
reads the trunk's own token. So every score equals that of a separate forward over prompt, prefix
and branch. Pure: no model here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

Ids = tuple[int, ...]
TRUNK, PADDING = -1, -2  # in place of a branch's number


@dataclass(frozen=True)
class Branch:
    """A score to read: behind the prompt and the first ``attach`` tokens of a response."""

    attach: int
    token_ids: Ids = ()
    response: int = 0


@dataclass(frozen=True)
class PackedRow:
    """A prompt, its responses and branches; the scores come in the order of ``branches``."""

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    branches: tuple[Branch, ...]

    @property
    def tokens(self) -> int:
        """Tokens that scoring the row computes, its prompt once."""
        trunk = len(self.prompt_ids) + sum(map(len, self.responses))
        return trunk + sum(len(branch.token_ids) for branch in self.branches)

    @property
    def longest(self) -> int:
        """Tokens of the longest text that a score is of: prompt, prefix and branch."""
        ends = (branch.attach + len(branch.token_ids) for branch in self.branches)
        return len(self.prompt_ids) + max(ends, default=0)


@dataclass(frozen=True)
class Tokens:
    """Tokens of N responses, padded on the right to T: each field (N, T) int64.

    ``position`` is a token's place behind the prompt's first, ``reach`` how many tokens of its
    trunk it sees, ``branch`` the number of its branch, negative in the trunk and on padding.
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
        """The same on another device."""
        return Tokens(*(getattr(self, field.name).to(device) for field in fields(self)))

    def rows(self, index: Tensor) -> "Tokens":
        """Rows kept, repeated or reordered: ``index`` (N',) int64."""
        return Tokens(*(getattr(self, field.name)[index] for field in fields(self)))

    def at(self, columns: Tensor) -> "Tokens":
        """The tokens at ``columns`` (N, C) int64; -1 is padding."""
        parts = (getattr(self, field.name) for field in fields(self))
        found = Tokens(*(part.gather(1, columns.clamp(min=0)) for part in parts))
        return replace(found, branch=found.branch.masked_fill(columns < 0, PADDING))


def prefix_row(
    prompt_ids: Ids, responses: Sequence[Ids], cuts: Sequence[Sequence[int]], closing_ids: Ids
) -> PackedRow:
    """The row whose scores are r(x, y_<t) for each t of ``cuts[i]``, response i after response i-1.

    Cuts are token counts; t > |y| means the whole y. ``closing_ids`` is the closing suffix for
    *closed* scoring, empty for *open* scoring.
    """
    branches = tuple(
        Branch(min(t, len(response)), closing_ids, number)
        for number, (response, own) in enumerate(zip(responses, cuts, strict=True))
        for t in own
    )
    return PackedRow(prompt_ids, tuple(responses), branches)


def trunk_tokens(texts: Sequence[Ids], starts: Sequence[int], pad_id: int) -> Tokens:
    """Pieces of trunks: text i from position ``starts[i]`` on. Padding is never read."""
    return _padded(
        [_part(ids, start, None, TRUNK) for ids, start in zip(texts, starts, strict=True)], pad_id
    )


def branch_tokens(
    rows: Sequence[PackedRow], chosen: Sequence[Sequence[int]], pad_id: int
) -> Tokens:
    """The tokens of some branches of each row, ``chosen[i]`` by number, one behind the other."""
    parts = []
    for row, own in zip(rows, chosen, strict=True):
        part = [np.zeros((4, 0), np.int64)]
        for number in own:
            branch = row.branches[number]
            place = len(row.prompt_ids) + branch.attach
            part.append(_part(branch.token_ids, place, place, number))
        parts.append(np.concatenate(part, 1))
    return _padded(parts, pad_id)


def joined(first: Tokens, second: Tokens) -> Tokens:
    """Both along T."""
    parts = ((getattr(first, f.name), getattr(second, f.name)) for f in fields(Tokens))
    return Tokens(*(torch.cat(pair, 1) for pair in parts))


def visible(queries: Tokens, keys: Tokens, window: int | None = None) -> Tensor:
    """Which key each query sees, (N, Tq, Tk) bool; the queries are the last tokens of ``keys``.

    ``window``: of a sliding-window layer, how many positions it looks back, its own included.
    """
    size, width = queries.shape[1], keys.shape[1]
    place = torch.arange(width - size, width, device=queries.ids.device)[:, None]
    column = torch.arange(width, device=queries.ids.device)
    trunk = (keys.branch == TRUNK)[:, None] & (keys.position[:, None] < queries.reach[..., None])
    own = (queries.branch[..., None] == keys.branch[:, None]) & (keys.branch >= 0)[:, None]
    seen = trunk | (own & (column <= place))
    if window is not None:
        seen &= queries.position[..., None] - keys.position[:, None] < window
    return seen | (column == place)  # padding sees itself: a softmax over nothing is NaN


def _part(ids: Ids, start: int, reach: int | None, branch: int) -> np.ndarray:
    """(4, T) in the order of the fields of Tokens."""
    part = np.empty((4, len(ids)), np.int64)
    part[0], part[1], part[3] = ids, start + np.arange(len(ids)), branch
    part[2] = part[1] + 1 if reach is None else reach
    return part


def _padded(parts: Sequence[np.ndarray], pad_id: int) -> Tokens:
    width = max(part.shape[1] for part in parts)
    filler = np.array([pad_id, 0, 0, PADDING])[:, None]
    whole = np.stack(
        [np.concatenate([part, filler.repeat(width - part.shape[1], 1)], 1) for part in parts]
    )
    return Tokens(*torch.from_numpy(whole).unbind(1))
