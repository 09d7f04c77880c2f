"""GSM8K (appendix C.1) and MATH: questions whose final answers are checked as mathematics."""

from typing import Literal, Self

from pydantic import model_validator

from orchestrator.fields.types import Share, Text
from orchestrator.randomness import stream_key
from orchestrator.records import Prompt
from orchestrator.tasks.task import (
    Grades,
    Progress,
    Task,
    TaskData,
    check_shares,
    register,
    require_usable_rows,
)


class AnswerTask(Task):
    """Worked answers for the policy, right and wrong solutions as pairs, test questions."""

    demonstrations: Text
    """File of `question`, `answer`, or of `problem`, `solution`, `answer`, which the policy
    imitates ([data.md](data.md#questions-with-answers))."""
    pairs: Text
    """File of preference pairs: right and wrong solutions."""
    test: Text
    """File of test questions, with the fields of `demonstrations`. Questions that the pairs or the
    demonstrations use are left out."""
    orm_share: Share = 0.3
    """Share of the pairs' prompts for the ORM; 0 only if `models.orm` is set."""
    reference_share: Share = 0.4
    """Share of the pairs' prompts for the reference reward model; 0 only if it is not trained. The
    PRM takes the remaining prompts."""

    file_fields = ("pairs", "demonstrations", "test")
    judged_by = "accuracy"
    counted = ("wrong_answers", "missing_answers", "unchecked_answers")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        check_shares(self, "orm_share", "reference_share")
        return self

    def read(self, seed: int, progress: Progress) -> TaskData:
        """Read the three files; drop test questions that occur in the pairs or demonstrations."""
        from orchestrator.data.pairs import read_pairs
        from orchestrator.data.questions import read_questions
        from orchestrator.data.splits import split_pairs

        pairs, rejects = require_usable_rows(self.pairs, *read_pairs(self.pairs))
        demonstrations, demonstration_rejects = require_usable_rows(
            self.demonstrations, *read_questions(self.demonstrations)
        )
        questions, test_rejects = require_usable_rows(self.test, *read_questions(self.test))
        shares = {"orm": self.orm_share, "reference": self.reference_share}
        splits = split_pairs(pairs, shares, self.test_prompts, seed)
        used = {row.prompt.prompt_id for row in (*pairs, *demonstrations)}
        unused = [row.prompt for row in questions if row.prompt.prompt_id not in used]
        if not unused:
            raise ValueError(
                f"data.test {self.test}: none of its {len(questions)} questions is left for the"
                " test: all are among data.pairs or data.demonstrations"
            )
        unused.sort(key=lambda prompt: stream_key(seed, "test", prompt.prompt_id))
        return TaskData(
            demonstrations,
            unused[: self.test_prompts],
            splits,
            rejects=[*rejects, *demonstration_rejects, *test_rejects],
        )

    def grade(self, prompt: Prompt, response: str, finished: bool) -> Grades:
        """Return ``accuracy``, 0 or 1 by the final answer, and why a response is not right.

        A response is right, wrong, without an answer, or unchecked: its answer could not be
        compared.
        """
        from orchestrator.data.math_answers import verdict

        judged = verdict(response, prompt.facts["answer"])
        return {
            "accuracy": float(judged == "right"),
            "wrong_answers": float(judged == "wrong"),
            "missing_answers": float(judged == "missing"),
            "unchecked_answers": float(judged == "unchecked"),
        }


@register
class GSM8K(AnswerTask):
    """Grade-school mathematics."""

    task: Literal["gsm8k"] = "gsm8k"
    """Questions with final answers. gsm8k and math both read rows of the GSM8K form and of the MATH
    form."""
    answers = "gsm8k"


@register
class MATH(AnswerTask):
    """Competition mathematics."""

    task: Literal["math"] = "math"
    """Questions with final answers. gsm8k and math both read rows of the GSM8K form and of the MATH
    form."""
    answers = "math"
