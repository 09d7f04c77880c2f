"""Questions with worked answers: GSM8K (appendix C.1), MATH, and conversations that hold both.

The true answer is the number after GSM8K's ``####``, or what MATH's rows state. Knows nothing of
prompt templates, tokens or models.
"""

from pathlib import Path

from orchestrator.conversations.messages import Conversation, conversation
from orchestrator.data.final_answers import boxed, gold_number
from orchestrator.data.pairs import prompt_id
from orchestrator.data.rejects import BadRow, Seen, field, response, text
from orchestrator.data.row_forms import RESPONSE_FIELDS, WHOLE, response_of
from orchestrator.data.rows import Row, parsed_rows
from orchestrator.records import Demonstration, Prompt, Reject

FIELDS = RESPONSE_FIELDS | {"answer", "solution"}
NO_ANSWER = "no final answer: valid is a plain number after the last ####, such as 1,250 or 3/4"
NO_BOX = "no final answer: valid is answer, or a solution with its last \\boxed{}"


def read_questions(path: str | Path) -> tuple[list[Demonstration], list[Reject]]:
    """All questions of a file, and the rows that are none, in order.

    Rows are GSM8K's (``question``, ``answer``), MATH's (``problem``, ``solution``, ``answer``) or
    conversations that end with the worked answer of GSM8K (``messages``, ``conversations``). The
    worked answer is the response to imitate, as it stands; the prompt's facts hold the true one as
    ``answer``. A question has the prompt id that it has in a file of pairs.
    """
    seen = Seen()

    def demonstration(_: int, row: Row) -> tuple[Demonstration]:
        prompt, worked, answer = _question(row)
        seen.check(identity := prompt_id(prompt), worked)
        return (Demonstration(Prompt(identity, prompt, {"answer": answer}), worked),)

    return parsed_rows(path, demonstration, FIELDS)


def _question(row: Row) -> tuple[Conversation, str, str]:
    """The prompt, the worked answer and the true one."""
    if row.get("problem") is not None:
        prompt = conversation("problem", text("problem", row["problem"]))
        worked = response("solution", field(row, "solution"))
        answer = boxed(worked) if row.get("answer") is None else text("answer", row["answer"])
        if not answer or not answer.strip():
            raise BadRow(NO_BOX)
        return prompt, worked, answer.strip()
    if row.get("question") is None and any(row.get(name) is not None for name in WHOLE):
        prompt, worked = response_of(row)
    else:
        prompt = conversation("question", text("question", field(row, "question")))
        worked = response("answer", field(row, "answer"))
    number = gold_number(worked)
    if number is None:
        raise BadRow(NO_ANSWER)
    return prompt, worked, number
