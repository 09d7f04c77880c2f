"""Every public form of a row as one: a prompt with its responses, and which of them is preferred.

All readers of rows go through this file, so that a form that one of them reads is read by all.
docs/data.md lists the forms. What is none of them, or leaves open which response is preferred, is a
``BadRow``. Knows nothing of files, tokens or models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from orchestrator.conversations.messages import (
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

Form = Literal["response", "pair", "ranked"]
# The fields that may hold the prompt; the first of them that a row has is read.
PROMPTS = ("prompt", "messages", "conversations", "context", "question", "problem", "instruction",
           "history")  # fmt: skip
WHOLE = ("messages", "conversations")  # of these, such as may hold the response too
CHOSEN = ("chosen", "rejected")
BESIDE_INSTRUCTION = ("input", "history")  # what Alpaca's rows join with the instruction
ANSWERS = ("completion", "response", "text")  # where a ranked completion holds its text

# What each reading of a row may look at; other fields of a row are never read.
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
MOST_RANKED = 256  # completions of a row: every two make a pair
TOO_MANY_RANKED = f"over {MOST_RANKED} ranked completions"
TWO_SYSTEMS = "two system messages: one in the conversation, another as the field system"
SEVERAL_PAIRS = (
    "ranked completions among rows of one pair or response, valid is a file that begins with them"
)


@dataclass(frozen=True)
class RowPair:
    """A preference pair of a row.

    Attributes:
        name: of the pair within its row, "" where the form holds one; else the positions of
            both completions in the row's list, from 1, the preferred one first.
        prompt: x.
        chosen: y_w.
        rejected: y_l.
    """

    name: str
    prompt: Conversation
    chosen: str
    rejected: str


def form_of(row: Row) -> Form | None:
    """What a row with such fields holds: one response, else a pair, else ranked completions."""
    if row.get("response") is not None:
        return "response"
    if all(row.get(name) is not None for name in CHOSEN):
        return "pair"
    if row.get("completions") is not None:
        return "ranked"
    if _sides(row) is not None:
        return "pair"
    conversations = any(row.get(name) is not None for name in WHOLE)
    return "response" if conversations and not any(name in row for name in CHOSEN) else None


def prompt_of(row: Row) -> Conversation:
    """The prompt of a row, which the assistant is to answer.

    Raises:
        BadRow: with the reason.
    """
    return _with_system(row, conversation(*_prompt_field(row)))


def response_of(row: Row) -> tuple[Conversation, str]:
    """The prompt and the one response of a row, or those of a conversation that ends with one.

    Raises:
        BadRow: with the reason.
    """
    value = row.get("response")
    if value is not None:
        if not isinstance(value, (list, dict)):
            text("response", value)
        prompt, (answer,) = _answers(row, {"response": value})
        return prompt, answer
    name = next((name for name in WHOLE if row.get(name) is not None), None)
    if name is None:
        raise BadRow("missing field: response")
    history, answer = answered(name, list(messages(name, row[name])))
    return _with_system(row, to_the_user(history)), answer


def pairs_of(row: Row) -> Iterator[RowPair | BadRow]:
    """The preference pairs of a row, or the reasons why they are none.

    Every two ranked completions make a pair, or give the reason why these two make none.

    Raises:
        BadRow: the row gives no pair at all.
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


def the_pair_of(row: Row) -> RowPair:
    """The one pair of a row.

    Raises:
        BadRow: the row holds none, or several.
    """
    pairs = list(pairs_of(row))
    if len(pairs) > 1:
        raise BadRow(SEVERAL_PAIRS)
    (pair,) = pairs
    if isinstance(pair, BadRow):
        raise pair
    return pair


def _sides(row: Row) -> Sides | None:
    """The two fields of responses that a row has, and which of them it prefers."""
    return next((side for side in SIDES if all(row.get(n) is not None for n in side[0])), None)


def _prompt_field(row: Row) -> tuple[str, Any]:
    name = next((name for name in PROMPTS if row.get(name) is not None), "prompt")
    if name == "instruction" and any(row.get(beside) for beside in BESIDE_INSTRUCTION):
        raise BadRow(INSTRUCTION)
    return name, field(row, name)


def _with_system(row: Row, prompt: Conversation) -> Conversation:
    """The prompt with the row's ``system`` in front, which ShareGPT's rows keep beside it."""
    value = row.get("system")
    if value is None or not text("system", value).strip():
        return prompt
    spoken = [message["content"].strip() for message in prompt if message["role"] == "system"]
    if spoken and spoken != [value.strip()]:
        raise BadRow(TWO_SYSTEMS)
    return prompt if spoken else ({"role": "system", "content": value}, *prompt)


def _answers(row: Row, values: dict[str, Any]) -> tuple[Conversation, list[str]]:
    """The prompt of a row, and the responses in some of its values.

    A response that is a conversation must go on from the prompt, and is the prompt where the row
    has no field for it.
    """
    user_turns = turns(row.get("prompt"))
    if user_turns is None and all(map(are_turns, (row.get("prompt"), *values.values()))):
        user_turns = row["prompt"]
    if user_turns is not None:
        sides = [_turned(name, user_turns, value) for name, value in values.items()]
        prompt: Conversation = sides[0][0]
    else:
        sides = [answered(name, value) for name, value in values.items()]
        prompt = _shared(row, sides)
    with_system = _with_system(row, prompt)
    for history, _ in sides:
        if (
            history
            and not same_conversation(history, prompt)
            and not same_conversation(history, with_system)
        ):
            raise BadRow(HISTORIES_DIFFER)
    return with_system, [answer for _, answer in sides]


def _turned(name: str, user_turns: Turns, value: Any) -> tuple[Conversation, str]:
    """The history and the response of one side where the prompt is a list of turns."""
    answers = value if are_turns(value) else turns(value)
    if answers is None and len(user_turns) == 1:
        answers = [response(name, value)]
    return interleaved(name, user_turns, answers or [])


def _shared(row: Row, sides: Sequence[tuple[Conversation, str]]) -> Conversation:
    """The prompt by its field, or what the responses go on from."""
    histories = [history for history, _ in sides]
    name = next((name for name in PROMPTS if row.get(name) is not None), None)
    if name is None and all(histories):
        return to_the_user(histories[0])
    if name in WHOLE and all(histories):
        parsed = messages(name, row[name])
        if parsed and parsed[-1]["role"] == "assistant":  # UltraFeedback: the preferred one
            expected = (*histories[0], {"role": "assistant", "content": sides[0][1]})
            if not same_conversation(parsed, expected):
                raise BadRow(HISTORIES_DIFFER)
            return to_the_user(histories[0])
    return conversation(*_prompt_field(row))


def _ranked(row: Row) -> Iterator[RowPair | BadRow]:
    """The pairs of ranked completions: each two whose ranks differ, in the order of the list."""
    listed = row["completions"]
    objects = isinstance(listed, list) and all(isinstance(item, dict) for item in listed)
    if not objects or len(listed) < 2:
        raise BadRow(NOT_RANKED)
    if len(listed) > MOST_RANKED:
        raise BadRow(TOO_MANY_RANKED)
    texts = [next((item[n] for n in ANSWERS if item.get(n) is not None), None) for item in listed]
    if None in texts:
        raise BadRow(NOT_RANKED)
    rank = ranks(listed)
    named = {f"completions {i}": value for i, value in enumerate(texts, start=1)}
    prompt, answers = _answers(row, named)
    for pair in combinations(range(len(answers)), 2):
        if rank[pair[0]] == rank[pair[1]]:
            yield BadRow(TIE)
            continue
        best, worst = sorted(pair, key=rank.__getitem__)
        yield RowPair(f"{best + 1}-{worst + 1}", prompt, answers[best], answers[worst])
