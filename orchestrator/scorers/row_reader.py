"""Converts the rows of a file to token ids and cuts for a scorer, without the scorer's weights.

A row holds a response, a pair, or ranked completions, which are scored pair by pair
(``data/row_forms.py``). A row that cannot be scored is a BadRow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from orchestrator.checkpoints.checkpoint import context_of
from orchestrator.choices import Position
from orchestrator.conversations.chat import Chat
from orchestrator.conversations.rendering import TemplateRefuses
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.rejects import BadRow
from orchestrator.data.row_forms import (
    PAIR_FIELDS,
    RESPONSE_FIELDS,
    RowForm,
    RowPair,
    pairs_of,
    response_of,
    single_pair_of,
)
from orchestrator.data.rows import Row
from orchestrator.data.shards import MultipleItems
from orchestrator.records import Message
from orchestrator.scorers.detect import scorer_kind
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.steps import step_ends
from orchestrator.search.engines import Ids

# The responses of a row, each with the prefix of its column names.
SIDES: dict[RowForm, dict[str, str]] = {
    "response": {"response": ""},
    "pair": {"chosen": "chosen_", "rejected": "rejected_"},
    "ranked": {"chosen": "chosen_", "rejected": "rejected_"},
}
NO_TOKENS = "empty response: {} has no tokens"
EQUAL_TOKENS = "chosen and rejected have the same tokens for the reward model"
REFUSED = "the reward model: {}"  # with the error of its chat template
TOO_LONG = (
    "too long for the reward model: prompt and response, with closing tokens and step tags, take"
    " more than {} tokens"
)


@dataclass(frozen=True)
class TokenizedRow:
    """A row in the scorer's tokens: one prompt, and a response with its cuts for each side.

    Attributes:
        prompt_ids: the prompt.
        responses: the responses, one per side.
        cuts: the prefix lengths that are scored, of each response.
        pair: name of the pair among those of ranked completions, as in a pair's id.
    """

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    cuts: tuple[list[int], ...]
    pair: str = ""

    @property
    def tokens(self) -> int:
        """Number of tokens of the prompt and of all responses."""
        return len(self.prompt_ids) + sum(map(len, self.responses))


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one file for one scorer; it can be pickled and loads its tokenizer lazily.

    Attributes:
        spec: the scorer.
        position: where it scores a prefix.
        rows: the form of the rows.
        prefixes: at which lengths responses are scored.
        seed: seed of random lengths.
        stem: prefix of the names of rows: row 5 of "file.jsonl" is "file-5", as a pair's id.
    """

    spec: ScorerSpec
    position: Position
    rows: RowForm
    prefixes: Prefixes
    seed: int
    stem: str

    @property
    def fields(self) -> frozenset[str]:
        """Fields of a row that are read."""
        return RESPONSE_FIELDS if self.rows == "response" else PAIR_FIELDS

    def check(self, number: int, row: Row) -> tuple[Sequence[Message], tuple[str, ...]]:
        """Return the prompt and the responses of a row, without a tokenizer.

        Raises:
            BadRow: a field is missing or of another type, or a response is empty.
        """
        if self.rows == "response":
            prompt, response = response_of(row)
            return prompt, (response,)
        pair = single_pair_of(row) if self.rows == "pair" else _first(pairs_of(row))
        return pair.prompt, (pair.chosen, pair.rejected)

    def read(self, number: int, row: Row) -> TokenizedRow:
        """Return a row in tokens.

        Raises:
            BadRow: as for ``check``; or there is no token to score, the chat template refuses the
                conversation, or the text is longer than the model's context.
        """
        return self._tokenized(f"{self.stem}-{number}", *self.check(number, row))

    def read_all(self, number: int, row: Row) -> TokenizedRow | MultipleItems:
        """Return a row in tokens; of ranked completions, each pair.

        Raises:
            BadRow: as for ``read``, if it concerns all pairs of the row.
        """
        if self.rows != "ranked":
            return self.read(number, row)
        return MultipleItems(tuple(self._pair(number, pair) for pair in pairs_of(row)))

    def _pair(self, number: int, pair: RowPair | BadRow) -> TokenizedRow | BadRow:
        if isinstance(pair, BadRow):
            return pair
        name = f"{self.stem}-{number}" + (f":{pair.name}" if pair.name else "")
        try:
            responses = pair.chosen, pair.rejected
            return replace(self._tokenized(name, pair.prompt, responses), pair=pair.name)
        except BadRow as bad:
            return bad

    def _tokenized(
        self, name: str, messages: Sequence[Message], texts: tuple[str, ...]
    ) -> TokenizedRow:
        reads = _reads_of(self.spec, self.position)
        try:
            if len(texts) > 1:
                prompt, *responses = reads.chat.pair(messages, *texts)
            else:
                text = reads.chat.conversation(messages, *texts)
                prompt, responses = text.prompt_ids, [text.response_ids]
        except TemplateRefuses as error:
            raise BadRow(REFUSED.format(error)) from None
        if len(responses) > 1 and responses[0] == responses[1]:
            raise BadRow(EQUAL_TOKENS)
        for side, ids in zip(SIDES[self.rows], responses, strict=True):
            if not ids:
                raise BadRow(NO_TOKENS.format(side))
            if reads.length(prompt, ids) > reads.context:
                raise BadRow(TOO_LONG.format(reads.context))
        longest = max(map(len, responses))
        cuts = tuple(
            self.prefixes.cuts(len(ids), longest, partial(reads.step_ends, ids), self.seed, name)
            for ids in responses
        )
        return TokenizedRow(prompt, tuple(responses), cuts)


def _first(pairs: Iterable[RowPair | BadRow]) -> RowPair:
    """Return the first of the pairs; if there is none, raise the first reason."""
    reasons = []
    for pair in pairs:
        if isinstance(pair, RowPair):
            return pair
        reasons.append(pair)
    raise reasons[0]


@dataclass(frozen=True)
class _Reads:
    """What a scorer reads in addition to the row."""

    chat: Chat
    context: int
    closing: int  # tokens
    tag: int  # tokens written after each step
    delimiter: str | None  # None: the response is one step

    def length(self, prompt: Ids, ids: Ids) -> int:
        """Return the number of tokens that the model reads for the full response."""
        steps = len(self.step_ends(ids)) + 1 if self.tag else 0
        return len(prompt) + len(ids) + self.closing + steps * self.tag

    def step_ends(self, ids: Ids) -> list[int]:
        """Return the token counts at which steps end."""
        return [] if self.delimiter is None else step_ends(self.chat, ids, self.delimiter)


@lru_cache(maxsize=4)
def _reads_of(spec: ScorerSpec, position: Position) -> _Reads:
    """Return what a scorer reads, computed once per process."""
    kind = scorer_kind(spec)
    chat = kind.chat(spec)
    context = min(context_of(name) for name in (spec.checkpoint, spec.base) if name)
    closed = position == "closed" and kind.position_matters
    closing = len(chat.closing_ids) if closed else 0
    layout = kind.step_layout(spec, chat)
    return _Reads(chat, context, closing, len(layout.written_ids), layout.delimiter)
