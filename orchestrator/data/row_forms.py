"""Parsing of all public forms of rows to a prompt, its responses, and the preferred one.

All readers of rows use this module, so that each accepts the same forms. docs/data.md lists them. A
row of another form, or without a clear preference, is a ``BadRow``. Independent of files,
tokenizers and models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from orchestrator.data.messages import (
    Conversation,
    Turns,
    answered,
    are_turns,
    conversation,
    interleaved,
    messages,
    same_conversation,
    to_the_user,
    turns,
)
from orchestrator.data.rejects import BadRow, field, response, text
from orchestrator.data.rows import Row
from orchestrator.data.verdicts import SIDES, TIE, VERDICTS, Sides, check_rating, ranks

RowForm = Literal["response", "pair", "ranked"]
# Fields that may hold the prompt, by priority.
PROMPTS = ("prompt", "messages", "conversations", "context", "question", "problem", "instruction",
           "history")  # fmt: skip
CONVERSATIONS = ("messages", "conversations")  # fields that may also hold the response
CHOSEN = ("chosen", "rejected")
BESIDE_INSTRUCTION = ("input", "history")  # fields that Alpaca's rows join with the instruction
ANSWERS = ("completion", "response", "text")  # fields of a ranked completion's text

# The fields that each parser reads; other fields of a row are never read.
PROMPT_FIELDS = frozenset((*PROMPTS, *BESIDE_INSTRUCTION, "system"))
RESPONSE_FIELDS = PROMPT_FIELDS | {"response"}
PAIR_FIELDS = PROMPT_FIELDS | {*CHOSEN, "completions", *VERDICTS,
                               *(name for names, _ in SIDES for name in names)}  # fmt: skip

HISTORIES_DIFFER = "the histories of chosen and rejected differ"
NO_PAIR = (
    "no pair of responses, valid are chosen and rejected; completions with rank or score;"
    " response_a and response_b with winner_model_a, winner_model_b, winner_tie; conversation_a and"
    " conversation_b with winner; response_1 and response_2 with preference_strength; response1 and"
    " response2 with overall_preference; human_ref_A and human_ref_B with labels"
)
NOT_RANKED = (
    "wrong type: completions is not a list of at least two objects that each hold their text as"
    f" {' or '.join(ANSWERS)}"
)
INSTRUCTION = (
    f"instruction with {' or '.join(BESIDE_INSTRUCTION)}, which data sets join in different ways,"
    " valid is the complete prompt as prompt or messages"
)
MAX_RANKED = 256  # completions of a row: every two form a pair
TOO_MANY_RANKED = f"over {MAX_RANKED} ranked completions"
TWO_SYSTEMS = "two system messages: one in the conversation, another as the field system"
SEVERAL_PAIRS = (
    "ranked completions with several pairs in a file that begins with a single pair, valid is a"
    " file that begins with ranked completions"
)


@dataclass(frozen=True)
class RowPair:
    """A preference pair of a row.

    Attributes:
        name: within its row: "" if the form has one pair; else the positions of both completions
            in the row's list, from 1, the preferred one first.
        prompt: x.
        chosen: y_w.
        rejected: y_l.
    """

    name: str
    prompt: Conversation
    chosen: str
    rejected: str


def form_of(row: Row) -> RowForm | None:
    """Return the form of a row by its fields: response, pair or ranked; None if unknown."""
    if row.get("response") is not None:
        return "response"
    if all(row.get(name) is not None for name in CHOSEN):
        return "pair"
    if row.get("completions") is not None:
        return "ranked"
    if _sides(row) is not None:
        return "pair"
    conversations = any(row.get(name) is not None for name in CONVERSATIONS)
    return "response" if conversations and not any(name in row for name in CHOSEN) else None


def prompt_of(row: Row) -> Conversation:
    """Return the prompt of a row, which ends with the user.

    Raises:
        BadRow: with the reason.
    """
    return _with_system(row, conversation(*_prompt_field(row)))


def response_of(row: Row) -> tuple[Conversation, str]:
    """Return prompt and response of a row, or of a conversation that ends with a response.

    Raises:
        BadRow: with the reason.
    """
    value = row.get("response")
    if value is not None:
        if not isinstance(value, (list, dict)):
            text("response", value)
        prompt, (answer,) = _answers(row, {"response": value})
        return prompt, answer
    name = next((name for name in CONVERSATIONS if row.get(name) is not None), None)
    if name is None:
        raise BadRow("missing field: response")
    history, answer = answered(name, list(messages(name, row[name])))
    return _with_system(row, to_the_user(history)), answer


def pairs_of(row: Row) -> Iterator[RowPair | BadRow]:
    """Yield the preference pairs of a row, or the reasons against them.

    Every two ranked completions yield a pair or a reason.

    Raises:
        BadRow: the row has no pairs.
    """
    if any(row.get(name) is not None for name in CHOSEN):
        prompt, both = _answers(row, {name: field(row, name) for name in CHOSEN})
        check_rating(row)
        yield RowPair("", prompt, *both)
    elif row.get("completions") is not None:
        yield from _ranked(row)
    elif (sides := _sides(row)) is not None:
        names, preferred = sides
        first = preferred(row)
        prompt, both = _answers(row, {name: row[name] for name in names})
        yield RowPair("", prompt, both[first], both[1 - first])
    elif any(name in row for name in CHOSEN):
        raise BadRow("missing field: chosen")
    else:
        raise BadRow(NO_PAIR)


def single_pair_of(row: Row) -> RowPair:
    """Return the only pair of a row.

    Raises:
        BadRow: the row has none or several.
    """
    pairs = list(pairs_of(row))
    if len(pairs) > 1:
        raise BadRow(SEVERAL_PAIRS)
    (pair,) = pairs
    if isinstance(pair, BadRow):
        raise pair
    return pair


def _sides(row: Row) -> Sides | None:
    """Return the names of a row's two response fields, and the function of its preference."""
    return next((side for side in SIDES if all(row.get(n) is not None for n in side[0])), None)


def _prompt_field(row: Row) -> tuple[str, object]:
    name = next((name for name in PROMPTS if row.get(name) is not None), "prompt")
    if name == "instruction" and any(row.get(other) for other in BESIDE_INSTRUCTION):
        raise BadRow(INSTRUCTION)
    return name, field(row, name)


def _with_system(row: Row, prompt: Conversation) -> Conversation:
    """Return the prompt with the row's ``system`` message (a field of ShareGPT's rows) first."""
    value = row.get("system")
    if value is None or not text("system", value).strip():
        return prompt
    system = [message["content"].strip() for message in prompt if message["role"] == "system"]
    if system and system != [value.strip()]:
        raise BadRow(TWO_SYSTEMS)
    return prompt if system else ({"role": "system", "content": value}, *prompt)


def _answers(row: Row, values: dict[str, object]) -> tuple[Conversation, list[str]]:
    """Return the prompt of a row, and the responses in ``values``.

    A response that is a conversation must continue the prompt; it defines the prompt if the row has
    no field for it.
    """
    user_turns = turns(row.get("prompt"))
    if user_turns is None and all(map(are_turns, (row.get("prompt"), *values.values()))):
        user_turns = row["prompt"]
    if user_turns is not None:
        sides = [_interleaved_side(name, user_turns, value) for name, value in values.items()]
        prompt: Conversation = sides[0][0]
    else:
        sides = [answered(name, value) for name, value in values.items()]
        prompt = _prompt_of_sides(row, sides)
    with_system = _with_system(row, prompt)
    for history, _ in sides:
        if (
            history
            and not same_conversation(history, prompt)
            and not same_conversation(history, with_system)
        ):
            raise BadRow(HISTORIES_DIFFER)
    return with_system, [answer for _, answer in sides]


def _interleaved_side(name: str, user_turns: Turns, value: object) -> tuple[Conversation, str]:
    """Return history and response of one side, for a prompt that is a list of turns."""
    answers = value if are_turns(value) else turns(value)
    if answers is None and len(user_turns) == 1:
        answers = [response(name, value)]
    return interleaved(name, user_turns, answers or [])


def _prompt_of_sides(row: Row, sides: Sequence[tuple[Conversation, str]]) -> Conversation:
    """Return the prompt from its field, or the history that the responses continue."""
    histories = [history for history, _ in sides]
    name = next((name for name in PROMPTS if row.get(name) is not None), None)
    if name is None and all(histories):
        return to_the_user(histories[0])
    if name in CONVERSATIONS and all(histories):
        parsed = messages(name, row[name])
        if parsed and parsed[-1]["role"] == "assistant":  # UltraFeedback: the preferred one
            expected = (*histories[0], {"role": "assistant", "content": sides[0][1]})
            if not same_conversation(parsed, expected):
                raise BadRow(HISTORIES_DIFFER)
            return to_the_user(histories[0])
    return conversation(*_prompt_field(row))


def _ranked(row: Row) -> Iterator[RowPair | BadRow]:
    """Yield the pairs of ranked completions with different ranks, in the order of the list."""
    listed = row["completions"]
    objects = isinstance(listed, list) and all(isinstance(item, dict) for item in listed)
    if not objects or len(listed) < 2:
        raise BadRow(NOT_RANKED)
    if len(listed) > MAX_RANKED:
        raise BadRow(TOO_MANY_RANKED)
    texts = [next((item[n] for n in ANSWERS if item.get(n) is not None), None) for item in listed]
    if None in texts:
        raise BadRow(NOT_RANKED)
    rank = ranks(listed)
    values = {f"completions {i}": value for i, value in enumerate(texts, start=1)}
    prompt, answers = _answers(row, values)
    for pair in combinations(range(len(answers)), 2):
        if rank[pair[0]] == rank[pair[1]]:
            yield BadRow(TIE)
            continue
        best, worst = sorted(pair, key=rank.__getitem__)
        yield RowPair(f"{best + 1}-{worst + 1}", prompt, answers[best], answers[worst])
