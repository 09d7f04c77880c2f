"""The border of prompt and response in a reward model's tokens.

A response's first tokens may merge with the prompt's last (the space that Mistral's template writes
before an answer), and a template may drop white space at its ends, or a thought.
"""

import logging
from functools import cached_property

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.control_tokens import Ids, split
from orchestrator.conversations.rendering import TemplateRefuses

_LOG = logging.getLogger(__name__)
_ENDS = (".", "!", "?", "...", "\n", " ", "5", ")")  # common ends of responses
_UNCHANGED = "such responses are scored unchanged"


class ResponseBorder:
    """Tokenizes responses after a reward model's prompt.

    Args:
        chat: the reward model's.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat, self._has_warned = chat, False

    def in_context(self, response: str, *, finished: bool = False) -> tuple[int, Ids]:
        """Return token ids of a response after a prompt, as the template writes it.

        The template may drop white space or a thought, or replace an empty thought by one. An
        unfinished response keeps the white space at its end.

        Returns:
            (n, ids): the response replaces the last n ids of the prompt by ``ids``.
        """
        if self._chat.template is None:
            return 0, self._chat.response_ids(response)
        try:
            text = self._chat.template.body(response, finished=finished)
        except TemplateRefuses as refusal:
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning(
                    "%s: %s", self._chat.tokenizer.name_or_path, f"{refusal}; {_UNCHANGED}"
                )
            text = self._chat.frame + self._chat.control.escape(response)
        shared, ids = split(self._prompt, self._chat.encoded(text))
        return len(self._prompt) - len(shared), ids

    def rewrites(self, response: str) -> bool:
        """Return whether a response's tokens depend on ``in_context``."""
        template = self._chat.template
        return template is not None and template.rewrites(response)

    @cached_property
    def merging_ends(self) -> tuple[str, ...]:
        """Those of a few common ends of responses that merge with the template's closing.

        A response with such an end has no closed score: its last token is part of the closing.
        """
        if self._chat.template is None:
            return ()
        _, closing = self._chat.template.frame([{"role": "user", "content": "x"}])
        begin = f"{self._chat.frame}x"
        ids = self._chat.encoded(begin + closing)[len(self._chat.encoded(begin)) :]
        texts = {end: self._chat.encoded(f"{begin}{end}{closing}") for end in _ENDS if ids}
        return tuple(end for end, text in texts.items() if text[-len(ids) :] != ids)

    def ends_like_probe_prompt(self, prompt_ids: Ids, count: int) -> bool:
        """Return whether the last ``count`` ids of a prompt equal those of the probe prompt.

        ``in_context`` may replace them only then.
        """
        return not count or prompt_ids[-count:] == self._prompt[-count:]

    def without_begin(self, response: str) -> str:
        """Return a response without the white space that the template drops at its beginning."""
        template = self._chat.template
        return response if template is None else response.lstrip(template.trims[0])

    def without_end(self, response: str) -> str:
        """Return a response without the white space that the template drops at its end."""
        template = self._chat.template
        return response if template is None else response.rstrip(template.trims[1])

    @cached_property
    def _prompt(self) -> Ids:
        return self._chat.encoded(self._chat.frame)
