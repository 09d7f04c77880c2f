"""What a scorer is asked of a row of a file: token ids and cuts, without the weights of the scorer.

A row holds a response, a pair, or ranked completions, which are scored pair by pair
(``data/row_forms.py``); what cannot be scored is a BadRow.
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
    Form,
    RowPair,
    pairs_of,
    response_of,
    single_pair_of,
)
from orchestrator.data.rows import Row
from orchestrator.data.shards import MultipleItems
from orchestrator.records import Message
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.step_formats import tag_format
from orchestrator.scorers.steps import BLANK_LINE, step_ends
from orchestrator.search.engines import Ids

RowKind = Form
# The responses of a row, each with the beginning of its columns' names.
SIDES: dict[RowKind, dict[str, str]] = {
    "response": {"response": ""},
    "pair": {"chosen": "chosen_", "rejected": "rejected_"},
    "ranked": {"chosen": "chosen_", "rejected": "rejected_"},
}
NO_TOKENS = "empty response: {} has no tokens"
EQUAL_TOKENS = "chosen and rejected have the same tokens for the reward model"
REFUSED = "the reward model: {}"  # and what its chat template says
TOO_LONG = "past the context: prompt and response take more than {} tokens"


@dataclass(frozen=True)
class Asked:
    """A row as a scorer is asked: one prompt, and a response and its cuts for each side.

    ``pair`` names the pair among those of ranked completions, as in a pair's id.
    """

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    cuts: tuple[list[int], ...]
    pair: str = ""

    @property
    def tokens(self) -> int:
        """Of the prompt, and of all responses."""
        return len(self.prompt_ids) + sum(map(len, self.responses))


@dataclass(frozen=True)
class RowReader:
    """Reads the rows of one file for one scorer. Pickles; its tokenizer is loaded where it works.

    Attributes:
        spec: the scorer.
        position: where it scores a prefix.
        rows: what the rows hold.
        prefixes: where responses are cut.
        seed: of cuts that are drawn.
        stem: what rows are called after: row 5 of "file.jsonl" is "file-5", as a pair's id.
    """

    spec: ScorerSpec
    position: Position
    rows: RowKind
    prefixes: Prefixes
    seed: int
    stem: str

    @property
    def fields(self) -> frozenset[str]:
        """The fields of a row that are read."""
        return RESPONSE_FIELDS if self.rows == "response" else PAIR_FIELDS

    def check(self, number: int, row: Row) -> tuple[Sequence[Message], tuple[str, ...]]:
        """The prompt and the responses of a row; no tokenizer is needed.

        Raises:
            BadRow: a field is missing or of another type, or a response is empty.
        """
        if self.rows == "response":
            prompt, response = response_of(row)
            return prompt, (response,)
        pair = single_pair_of(row) if self.rows == "pair" else _first(pairs_of(row))
        return pair.prompt, (pair.chosen, pair.rejected)

    def read(self, number: int, row: Row) -> Asked:
        """What the scorer is asked.

        Raises:
            BadRow: as ``check``; or there is no token to score, the chat template does not take the
                conversation, or the text is longer than the model reads.
        """
        return self._asked(f"{self.stem}-{number}", *self.check(number, row))

    def read_all(self, number: int, row: Row) -> Asked | MultipleItems:
        """What the scorer is asked; of ranked completions for each pair.

        Raises:
            BadRow: as ``read``, about the row as a whole.
        """
        if self.rows != "ranked":
            return self.read(number, row)
        return MultipleItems(tuple(self._asked_of(number, pair) for pair in pairs_of(row)))

    def _asked_of(self, number: int, pair: RowPair | BadRow) -> Asked | BadRow:
        if isinstance(pair, BadRow):
            return pair
        name = f"{self.stem}-{number}" + (f":{pair.name}" if pair.name else "")
        try:
            responses = pair.chosen, pair.rejected
            return replace(self._asked(name, pair.prompt, responses), pair=pair.name)
        except BadRow as bad:
            return bad

    def _asked(self, name: str, messages: Sequence[Message], texts: tuple[str, ...]) -> Asked:
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
        return Asked(prompt, tuple(responses), cuts)


def _first(pairs: Iterable[RowPair | BadRow]) -> RowPair:
    """The first of the pairs; where there is none, the first reason is raised."""
    reasons = []
    for pair in pairs:
        if isinstance(pair, RowPair):
            return pair
        reasons.append(pair)
    raise reasons[0]


@dataclass(frozen=True)
class _Reads:
    """What a scorer reads beside the row itself."""

    chat: Chat
    context: int
    closing: int  # tokens
    tag: int  # tokens written behind each step
    delimiter: str | None  # None: the whole response is one step

    def length(self, prompt: Ids, ids: Ids) -> int:
        """Tokens that the model reads for the whole response."""
        steps = len(self.step_ends(ids)) + 1 if self.tag else 0
        return len(prompt) + len(ids) + self.closing + steps * self.tag

    def step_ends(self, ids: Ids) -> list[int]:
        """Token counts with which a complete step ends."""
        return [] if self.delimiter is None else step_ends(self.chat, ids, self.delimiter)


@lru_cache(maxsize=4)
def _reads_of(spec: ScorerSpec, position: Position) -> _Reads:
    """Of a scorer, found once in a process."""
    kind, chat = kind_of(spec), chat_of(spec)
    context = min(context_of(name) for name in (spec.checkpoint, spec.base) if name)
    closed = position == "closed" and kind in ("sequence", "encoder")
    closing = len(chat.closing_ids) if closed else 0
    if kind != "step_tag":
        return _Reads(chat, context, closing, 0, spec.step_delimiter or BLANK_LINE)
    form = tag_format(spec, chat)
    tag = len(form.tag_ids) + len(form.between_ids)
    return _Reads(chat, context, closing, tag, form.delimiter)
