"""Where a response meets the prompt, in a reward model's tokens.

A response's first tokens may merge with the prompt's last (the space that Mistral's template writes
in front of an answer), and a template may leave white space out at its ends, or a thought.
"""

import logging
from functools import cached_property

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.control_tokens import Ids, split
from orchestrator.conversations.rendering import TemplateRefuses

_LOG = logging.getLogger(__name__)
_ENDS = (".", "!", "?", "...", "\n", " ", "5", ")")  # of responses
_AS_IT_IS = "such responses are read as they are"


class ResponseBorder:
    """Reads responses behind a reward model's prompt.

    Args:
        chat: the reward model's.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat, self._has_told = chat, False

    def in_context(self, response: str, *, finished: bool = False) -> tuple[int, Ids]:
        """Token ids of a response behind a prompt, as the template writes it.

        It may leave out white space or a thought, or write a thought in place of an empty one. A
        response that is not finished keeps the white space at its end.

        Returns:
            (n, ids): the response replaces the last n ids of the prompt by ``ids``.
        """
        if self._chat.template is None:
            return 0, self._chat.response_ids(response)
        try:
            text = self._chat.template.body(response, finished=finished)
        except TemplateRefuses as refusal:
            if not self._has_told:
                self._has_told = True
                _LOG.warning("%s: %s", self._chat.tokenizer.name_or_path, f"{refusal}; {_AS_IT_IS}")
            text = self._chat.frame + self._chat.control.escape(response)
        whole = self._chat.encoded(text)
        before, ids = split(self._prompt, whole)
        return len(self._prompt) - len(before), ids

    def rewrites(self, response: str) -> bool:
        """Whether only ``in_context`` tells what a response becomes."""
        template = self._chat.template
        return template is not None and template.rewrites(response)

    @cached_property
    def merging_ends(self) -> tuple[str, ...]:
        """Ends of responses, of a few common ones, that merge with the template's closing.

        No such response has a closed score: its last token is not its own.
        """
        if self._chat.template is None:
            return ()
        _, closing = self._chat.template.frame([{"role": "user", "content": "x"}])
        begin = f"{self._chat.frame}x"
        ids = self._chat.encoded(begin + closing)[len(self._chat.encoded(begin)) :]
        texts = {end: self._chat.encoded(f"{begin}{end}{closing}") for end in _ENDS if ids}
        return tuple(end for end, text in texts.items() if text[-len(ids) :] != ids)

    def has_probe_ending(self, prompt_ids: Ids, count: int) -> bool:
        """Whether the last ``count`` ids of a prompt equal those of the probe prompt.

        Only then may ``in_context`` replace them.
        """
        return not count or prompt_ids[-count:] == self._prompt[-count:]

    def without_begin(self, response: str) -> str:
        """A response without the white space that the template leaves out at its beginning."""
        template = self._chat.template
        return response if template is None else response.lstrip(template.trims[0])

    def without_end(self, response: str) -> str:
        """A response without the white space that the template leaves out at its end."""
        template = self._chat.template
        return response if template is None else response.rstrip(template.trims[1])

    @cached_property
    def _prompt(self) -> Ids:
        return self._chat.encoded(self._chat.frame)
