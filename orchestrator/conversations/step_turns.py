"""A chat template that writes the steps of a solution as a conversation.

The first step is in the user's last turn, after the problem; the assistant answers each step with
one token, which says whether the step is right. RLHFlow's and Granite's process reward models read
solutions in this form.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from orchestrator.conversations.rendering import ChatTemplate, Rendering, TemplateRefuses, Turns
from orchestrator.records import Message

_STEPS = ("\u2060step one\u2060", "\u2060step two\u2060")
_ANSWER = "\u2060answer\u2060"


class StepTurns(ChatTemplate):
    """A chat template with a solution as the response.

    Args:
        tokenizer: the Hugging Face tokenizer.
        source: the Jinja template.
        gap: text between the problem and the first step.
        question: text after each step within its turn.
        answer: the assistant's answer to a step.
        fold_system: as in ``ChatTemplate``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        gap: str,
        question: str,
        answer: str,
        fold_system: bool = True,
    ) -> None:
        super().__init__(tokenizer, source, fold_system)
        self._gap, self._question, self._answer = gap, question, answer

    @property
    def trims(self) -> tuple[str | None, str | None]:
        """All white space at a solution's beginning is dropped, as in the models' own code."""
        return None, ""

    def frame(self, messages: Sequence[Message]) -> tuple[str, str]:
        """Return the text before the first step, and "" as the text after it.

        Raises:
            TemplateRefuses: the template does not take the conversation, or does not write a step
                once.
        """
        return self._frame(self._turns(messages))

    def conversation(self, messages: Sequence[Message], response: str) -> Rendering:
        """Render the conversation up to the end of a solution, written as one step.

        Raises:
            TemplateRefuses: as ``frame``.
        """
        before, after = self.frame(messages)
        return Rendering(before, self.control.escape(response).lstrip(), after)

    def body(self, response: str, *, finished: bool) -> str:
        """Render a short prompt up to the end of a solution, written as one step."""
        before, _ = self._frame((("user", "x"),))
        return before + self.control.escape(response).lstrip()

    is_verbatim = True  # as one step

    def between_steps(self) -> tuple[str, str]:
        """Return the text from a step to its answer, and from there to the next step.

        Raises:
            TemplateRefuses: the template does not write steps and answers once each.
        """
        first, second = _STEPS
        turns: Turns = (
            ("user", f"x{self._gap}{first}{self._question}"),
            ("assistant", _ANSWER),
            ("user", f"{second}{self._question}"),
            ("assistant", self._answer),
        )
        text = self._render(turns)
        _, _, after_first = text.partition(first)
        middle, _, _ = after_first.partition(second)
        parts = middle.split(_ANSWER)
        if len(parts) != 2:
            raise TemplateRefuses("the chat template does not write each step and answer once")
        return parts[0], self._answer + parts[1]

    def _rendered_frame(self, turns: Turns) -> tuple[str, str]:
        *history, (role, problem) = turns
        step, _ = _STEPS
        parts = self._render((*history, (role, f"{problem}{self._gap}{step}"))).split(step)
        if len(parts) != 2:
            raise TemplateRefuses(
                f"the chat template writes a step {len(parts) - 1} times, not once"
            )
        return parts[0], ""
