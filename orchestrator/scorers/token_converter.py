"""Converts requests from a policy's token ids to a reward model's.

If both have the same vocabulary, the ids are kept, except for a response whose first tokens merge
with the end of the prompt, or whose white space the reward model's template removes. All other
responses are tokenized by their text, incrementally (`conversations/retokenizing.py`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.conversations.chat import Chat
from orchestrator.conversations.rendering import END_THINK
from orchestrator.conversations.response_border import ResponseBorder
from orchestrator.conversations.retokenizing import Retokenizer
from orchestrator.search.engines import Ids, ScoreRequest

_LOG = logging.getLogger(__name__)
_MERGES = "the chat template's closing tokens merge with responses that end with"
_SEPARATE = "search tokenizes the closing tokens separately, and scoring jobs reject such responses"


@dataclass(frozen=True)
class RewardModelRequest:
    """A request in the reward model's tokens.

    ``indices`` holds, for each extension, its index in the original request.
    """

    request: ScoreRequest
    indices: tuple[int, ...]


class TokenConverter:
    """Converts the responses of a policy to the tokens of a reward model.

    Args:
        policy: tokenizer of the incoming ids; None is the reward model's.
        model: tokenizer of the reward model.
    """

    def __init__(self, policy: Chat | None, model: Chat) -> None:
        self._policy, self._model = policy or model, model
        self._border = ResponseBorder(model)
        if self._border.merging_ends:
            ends = ", ".join(map(repr, self._border.merging_ends))
            _LOG.warning("%s: %s %s; %s", model.tokenizer.name_or_path, _MERGES, ends, _SEPARATE)
        self.same_vocabulary = policy is None or _same_vocabulary(policy, model)
        self._retokenizer = Retokenizer(self._policy, model)
        lead = self._policy.lead
        self._lead_begin = self._policy.marker_ids(lead)[0] if lead.strip() else None
        end_think = self._policy.marker_ids(END_THINK)
        self._end_think = end_think[0] if len(end_think) == 1 else None
        self._replaced_by_first_token: dict[int, int | None] = {}
        self._trimmed_ends: dict[int, bool] = {}

    def convert_request(self, request: ScoreRequest) -> list[RewardModelRequest]:
        """Return a request in the reward model's tokens.

        There are several if the responses replace different numbers of tokens at the end of the
        prompt.
        """
        prefix, are_finished = request.prefix_ids, request.are_finished
        pairs = list(zip(request.extensions, are_finished, strict=True))
        replaced = [self._replaced(prefix, extension, finished) for extension, finished in pairs]
        count = replaced[0] if len(set(replaced)) == 1 else None
        if count is not None and self._border.ends_like_probe_prompt(request.prompt_ids, count):
            prompt = request.prompt_ids[: len(request.prompt_ids) - count]
            converted = ScoreRequest(prompt, prefix, request.extensions, are_finished)
            return [RewardModelRequest(converted, tuple(range(len(pairs))))]
        groups: dict[int, list[tuple[int, Ids]]] = {}
        for index, (extension, finished) in enumerate(pairs):
            count, ids = self.convert_response(prefix, extension, finished)
            if not self._border.ends_like_probe_prompt(request.prompt_ids, count):
                # The merge would change the user's text, so tokenize the response separately.
                text = self._policy.response_text(prefix + extension)
                count, ids = 0, self._model.response_ids(text)
            groups.setdefault(count, []).append((index, ids))
        return [_together(request, count, group) for count, group in groups.items()]

    def convert_response(self, prefix_ids: Ids, extension: Ids, finished: bool) -> tuple[int, Ids]:
        """Return how many tokens at the prompt's end a response replaces, and its tokens."""
        count = self._replaced(prefix_ids, extension, finished)
        if count is not None:
            return count, prefix_ids + extension
        return self._retokenizer.response(prefix_ids, extension, finished)

    def _replaced(self, prefix: Ids, extension: Ids, finished: bool) -> int | None:
        """Return how many prompt tokens a response replaces; None if it must be retokenized."""
        if not self.same_vocabulary:
            return None
        if not prefix and not extension:
            return 0
        if finished and self._is_trimmed_end((extension or prefix)[-1]):
            return None
        first = (prefix or extension)[0]
        if first == self._lead_begin or self._is_rewritten(prefix, extension):
            return None
        if first in self._policy.control.ids:
            return 0  # a control token has no text
        if first not in self._replaced_by_first_token:
            count, ids = self._border.in_context(self._policy.response_text((first,)))
            self._replaced_by_first_token[first] = count if ids == (first,) else None
        return self._replaced_by_first_token[first]

    def _is_rewritten(self, prefix: Ids, extension: Ids) -> bool:
        """Return whether the reward model's template may change the text of the response."""
        template = self._model.template
        if template is None or (template.is_verbatim and not template.reads_thoughts):
            return False
        if template.is_verbatim and self._end_think is not None:
            return self._end_think in prefix or self._end_think in extension
        return template.rewrites(self._policy.response_text(prefix + extension))

    def _is_trimmed_end(self, token_id: int) -> bool:
        """Return whether a token may end with white space that the template removes.

        A white-space token may decode to an empty string.
        """
        if token_id not in self._trimmed_ends:
            text = self._policy.text((token_id,))
            blank = not text and token_id not in self._policy.control.ids
            self._trimmed_ends[token_id] = blank or self._border.without_end(text) != text
        return self._trimmed_ends[token_id]


def _together(
    request: ScoreRequest, count: int, group: Sequence[tuple[int, Ids]]
) -> RewardModelRequest:
    """Return one request for full responses, with their common beginning as its prefix."""
    responses = [ids for _, ids in group]
    columns = zip(*responses, strict=False)
    shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, columns))
    indices = tuple(index for index, _ in group)
    are_finished = request.are_finished
    return RewardModelRequest(
        ScoreRequest(
            request.prompt_ids[: len(request.prompt_ids) - count],
            responses[0][:shared],
            tuple(ids[shared:] for ids in responses),
            tuple(are_finished[index] for index in indices),
        ),
        indices,
    )


def _same_vocabulary(first: Chat, second: Chat) -> bool:
    """Return whether both have the same vocabulary."""
    return bool(first.tokenizer.get_vocab() == second.tokenizer.get_vocab())
