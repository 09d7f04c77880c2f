"""What every scorer is: scores of prefixes of responses, and of extensions of known prefixes.

A kind of reward model says how prefixes are scored; everything else follows from that. Knows
nothing of search or of Ray.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.engines.chat import Chat
from orchestrator.engines.checkpoints import NO_LIMIT, TextDoesNotFit
from orchestrator.engines.retokenizing import Retokenizer
from orchestrator.rewards.aggregation import Aggregation
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.search.engines import Ids, Scored, ScoreRequest

Position = Literal["closed", "open"]
Kind = Literal["sequence", "encoder", "step_tag", "log_ratio"]
Engine = Literal["transformers", "vllm"]


@dataclass(frozen=True)
class ScorerSpec:
    """Which model scores, and how, as plain values that can be sent to any actor.

    Attributes:
        checkpoint: folder or hub name.
        kind: of reward model; None is what the checkpoint's own files say.
        aggregation: how step rewards become a prefix's score; None is the kind's own way.
        step_delimiter: text that ends a step of a response; None is the kind's own.
        step_tag: text behind which the reward of a step is read; None is what the checkpoint tells.
        base: folder or hub name of a log ratio's denominator; a spec with one is a log ratio.
        beta: factor of a log ratio.
        branch_memory_mib: what the branches of one pass may take beside their trunks (MiB); kinds
            without branches need none of it.
        engine: what computes; ``vllm`` only the kind ``sequence``.
        score_label: index of the label that is the score, of a head of several labels; for the
            kinds ``sequence`` and ``encoder``.
    """

    checkpoint: str
    kind: Kind | None = None
    aggregation: Aggregation | None = None
    step_delimiter: str | None = None
    step_tag: str | None = None
    base: str | None = None
    beta: float = 1.0
    branch_memory_mib: int = BRANCH_MEMORY_MIB
    engine: Engine = "transformers"
    score_label: int | None = None


class RewardIsNotFinite(ValueError):
    """A reward model gave NaN or infinity; the message names the rows, ``rows`` all of them."""

    rows: tuple[int, ...] = ()


class Scorer(ABC):
    """A reward model that scores prefixes.

    Args:
        chat: the model's own tokenizer and template.
        position: where a prefix is scored: ``closed`` after the template's closing suffix,
            ``open`` at its last content token.
        policy_chat: the tokenizer that a request's prefix and extension ids belong to; None means
            the model's own. Its prompt ids are always the model's own (another template).
    """

    context: int = NO_LIMIT  # most tokens that the model reads at once

    def __init__(self, chat: Chat, position: Position, policy_chat: Chat | None) -> None:
        self.chat, self.position = chat, position
        self._retokenizer: Retokenizer | None = None
        if policy_chat is not None and not _same(policy_chat, chat):
            self._retokenizer = Retokenizer(policy_chat, chat)

    @property
    def shares_tokenizer(self) -> bool:
        """Whether the policy's token ids are the model's own, and pass straight through."""
        return self._retokenizer is None

    @abstractmethod
    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) for each t of ``cuts[i]`` (tokens; past the end: the whole of it).

        Ids are the model's own. Several ``positions`` are scored in the same pass: all cuts of the
        first, then of the next; without any, the scorer's own.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            TextDoesNotFit: a prefix is longer than the model reads.
        """

    def forget(self) -> None:  # noqa: B027
        """Drops what is kept between requests; a kind that keeps something overrides this."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Scores all requests; result i belongs to request i.

        Every extension is scored as a response of its own. Kinds that can share the prefix's
        computation override this.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite. A kind that knows whose it is may give
                the NaN instead, and scores the others.
            TextDoesNotFit: a response and its closing have no room in the model's context.
        """
        prompts, responses, longest = [], [], []
        for request in requests:
            own = [self.own_ids(request.prefix_ids, extension) for extension in request.extensions]
            prompts += [request.prompt_ids] * len(own)
            responses += own
            longest.append(len(request.prompt_ids) + max(map(len, own), default=0))
        self.check_room([n + len(self.closing(self.position)) for n in longest])
        scores = self.prefix_scores(prompts, responses, [[len(y)] for y in responses])
        tokens = [self.tokens_of(x, y) for x, y in zip(prompts, responses, strict=True)]
        found, start = [], 0
        for request in requests:
            end = start + len(request.extensions)
            values = tuple(row[0] for row in scores[start:end])
            found.append(Scored(values, sum(tokens[start:end])))
            start = end
        return found

    def tokens_of(self, prompt: Ids, response: Ids) -> int:
        """Tokens computed for the score of one whole response by itself."""
        return self.tokens_of_prefixes(prompt, response, [len(response)])

    def tokens_of_prefixes(self, prompt: Ids, response: Ids, cuts: Sequence[int]) -> int:
        """Tokens computed for the scores of some prefixes of one response, in one pass."""
        return len(prompt) + len(response) + len(cuts) * len(self.closing(self.position))

    def own_ids(self, prefix_ids: Ids, extension: Ids = ()) -> Ids:
        """A response of the policy in the model's own tokens, as its whole text is tokenized.

        A character of which the last tokens are still to come is not there yet. With a prefix that
        was asked for before only its last words are tokenized again.
        """
        if self._retokenizer is None:
            return prefix_ids + extension
        return self._retokenizer.ids(prefix_ids, extension)

    def check_room(self, lengths: Sequence[int]) -> None:
        """Checks that texts of so many tokens fit the model's context.

        A prompt whose response fits by the policy's tokens may not do so by the model's own.

        Raises:
            TextDoesNotFit: some do not.
        """
        bad = tuple(i for i, length in enumerate(lengths) if length > self.context)
        if bad:
            raise TextDoesNotFit(
                f"a text of {max(lengths)} tokens: the reward model reads {self.context} at most",
                bad,
            )

    def closing(self, position: Position) -> Ids:
        """The closing suffix of a position: empty for open scoring."""
        return self.chat.closing_ids if position == "closed" else ()


def check_finite(scores: Sequence[Sequence[float]]) -> None:
    """Raises RewardIsNotFinite, with the numbers of the rows, where a score is NaN or infinite."""
    bad = [i for i, values in enumerate(scores) if not all(map(math.isfinite, values))]
    if bad:
        error = RewardIsNotFinite(f"rewards of rows {bad[:20]} (of {len(bad)}) are not finite")
        error.rows = tuple(bad)
        raise error


def _same(first: Chat, second: Chat) -> bool:
    """Whether token ids mean the same text in both."""
    return (
        first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
        and first.closing_ids == second.closing_ids
    )
