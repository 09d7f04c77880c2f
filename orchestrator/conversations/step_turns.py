"""A chat template that writes the steps of a solution as a conversation.

The first step stands in the user's last turn, behind the problem; to each step the assistant
answers one token, which tells whether it is right. So do RLHFlow's and Granite's process reward
models read a solution.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from orchestrator.conversations.rendering import ChatTemplate, Rendering, TemplateRefuses, Turns
from orchestrator.records import Message

_STEPS = ("\u2060step one\u2060", "\u2060step two\u2060")
_ANSWER = "\u2060answer\u2060"


class StepTurns(ChatTemplate):
    """A chat template with a solution in place of a response.

    Args:
        tokenizer: the Hugging Face tokenizer.
        source: the Jinja template.
        gap: text between the problem and the first step.
        question: text behind each step within its turn.
        answer: what the assistant answers.
        fold_system: as of ``ChatTemplate``.
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
        """All white space at a solution's beginning is left out, as by the models' own code."""
        return None, ""

    def frame(self, messages: Sequence[Message]) -> tuple[str, str]:
        """What stands in front of the first step; nothing stands behind an unfinished turn.

        Raises:
            TemplateRefuses: the template does not take the conversation, or does not write a step
                once.
        """
        return self._frame(self._turns(messages))

    def conversation(self, messages: Sequence[Message], response: str) -> Rendering:
        """The conversation up to the end of a solution that is written as one step.

        Raises:
            TemplateRefuses: as ``frame``.
        """
        before, behind = self.frame(messages)
        return Rendering(before, self.control.escape(response).lstrip(), behind)

    def body(self, response: str, *, finished: bool) -> str:
        """The conversation of a short prompt up to the end of a solution written as one step."""
        before, _ = self._frame((("user", "x"),))
        return before + self.control.escape(response).lstrip()

    is_verbatim = True  # as one step

    def between_steps(self) -> tuple[str, str]:
        """What stands behind a step up to its answer, and from there to the next step.

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
        _, _, rest = text.partition(first)
        middle, _, _ = rest.partition(second)
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
