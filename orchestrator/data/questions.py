r"""Questions with worked solutions: GSM8K (appendix C.1), MATH, and conversations.

Conversations have GSM8K solutions. The reference answer is the number after the last ``####``; for
MATH the field ``answer``, or without it the content of the solution's last ``\boxed{}``.
Independent of prompt templates, tokenizers and models.
"""

from pathlib import Path

from orchestrator.data.final_answers import boxed, gold_number
from orchestrator.data.messages import Conversation, conversation
from orchestrator.data.pairs import prompt_id
from orchestrator.data.rejects import BadRow, Seen, field, response, text
from orchestrator.data.row_forms import CONVERSATIONS, RESPONSE_FIELDS, response_of
from orchestrator.data.rows import Row, parsed_rows
from orchestrator.records import Demonstration, Prompt, Reject

FIELDS = RESPONSE_FIELDS | {"answer", "solution"}
NO_ANSWER = "no final answer, valid is a plain number after the last ####, such as 1,250 or 3/4"
NO_BOX = "no final answer, valid is a field answer, or a solution that contains \\boxed{...}"


def read_questions(path: str | Path) -> tuple[list[Demonstration], list[Reject]]:
    """Read all questions of a file, and the rejects, in order.

    Rows are GSM8K's (``question``, ``answer``), MATH's (``problem``, ``solution``, ``answer``) or
    conversations that end with a worked solution of GSM8K (``messages``, ``conversations``). The
    unchanged solution is the demonstrated response; the prompt's facts hold the reference answer as
    ``answer``. A question has the same prompt id as in a file of pairs.
    """
    seen = Seen()

    def demonstration(_: int, row: Row) -> tuple[Demonstration]:
        prompt, solution, answer = _question(row)
        seen.check(identity := prompt_id(prompt), solution)
        return (Demonstration(Prompt(identity, prompt, {"answer": answer}), solution),)

    return parsed_rows(path, demonstration, FIELDS)


def _question(row: Row) -> tuple[Conversation, str, str]:
    """Return the prompt, the worked solution and the reference answer."""
    if row.get("problem") is not None:
        prompt = conversation("problem", text("problem", row["problem"]))
        solution = response("solution", field(row, "solution"))
        answer = boxed(solution) if row.get("answer") is None else text("answer", row["answer"])
        if not answer or not answer.strip():
            raise BadRow(NO_BOX)
        return prompt, solution, answer.strip()
    if row.get("question") is None and any(row.get(name) is not None for name in CONVERSATIONS):
        prompt, solution = response_of(row)
    else:
        prompt = conversation("question", text("question", field(row, "question")))
        solution = response("answer", field(row, "answer"))
    number = gold_number(solution)
    if number is None:
        raise BadRow(NO_ANSWER)
    return prompt, solution, number
