"""What every scorer is: scores of prefixes of responses, and of extensions of known prefixes.

A kind of reward model says how prefixes are scored; everything else follows from that. Knows
nothing of search or of Ray.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.checkpoints.checkpoint import NO_LIMIT, TextDoesNotFit
from orchestrator.choices import Aggregation, Engine, Finished, Position, ScorerKind
from orchestrator.conversations.chat import Chat
from orchestrator.conversations.end_tokens import ScoreAt
from orchestrator.rewards.one_pass import BRANCH_MEMORY_MIB
from orchestrator.scorers.formats import StepFormat, preset_of
from orchestrator.scorers.policy_tokens import PolicyTokens
from orchestrator.search.engines import Ids, Scored, ScoreRequest


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
        preset: the family of public models that it belongs to, which says its kind and format
            where nothing else does (`formats.py`).
        step_format: how a process reward model reads steps; None is what the checkpoint tells.
        score_token: id of the token whose logit behind the finished conversation is the score, of
            a language model.
        finished: where search scores a finished response: ``template`` closes it always,
            ``position`` scores it where an unfinished prefix is scored.
        score_at: the token of the template's closing at which the model scores, as text or as a
            negative index from the rendering's end; None is the last one.
        fold_system: whether a system message that the model's template does not write is folded
            into the first user message.
    """

    checkpoint: str
    kind: ScorerKind | None = None
    aggregation: Aggregation | None = None
    step_delimiter: str | None = None
    step_tag: str | None = None
    base: str | None = None
    beta: float = 1.0
    branch_memory_mib: int = BRANCH_MEMORY_MIB
    engine: Engine = "transformers"
    score_label: int | None = None
    preset: str | None = None
    step_format: StepFormat | None = None
    score_token: int | None = None
    finished: Finished = "template"
    score_at: ScoreAt | None = None
    fold_system: bool = True

    def __post_init__(self) -> None:
        """Fills what the preset says.

        Raises:
            ValueError: there is no such preset, or fields do not go together.
        """
        if isinstance(self.score_at, bool) or not isinstance(self.score_at, str | int | None):
            raise ValueError(f"score_at = {self.score_at!r}: valid: a text or a whole number")
        if self.preset is not None:
            self._fill(self.preset)
        if self.score_token is None:
            return
        if self.kind not in (None, "sequence"):
            raise ValueError(
                f"kind = {self.kind!r}: score_token is of kind 'sequence'; valid: one of the two"
            )
        if self.step_format is not None:
            raise ValueError(
                "format: not read with score_token, which scores whole responses; valid: one of the"
                " two"
            )

    def _fill(self, name: str) -> None:
        preset = preset_of(name)
        fields = {
            "kind": preset.kind,
            "format": preset.step_format,
            "score_token": preset.score_token,
        }
        for field, value in fields.items():
            attribute = "step_format" if field == "format" else field
            given = getattr(self, attribute)
            if given is None:
                object.__setattr__(self, attribute, value)
            elif given != value:
                shown = "" if field == "format" else f" = {given!r}"
                says = f"is of kind {value!r}" if field == "kind" else f"says another {field}"
                says = f"has no {field}" if value is None else says
                raise ValueError(f"{field}{shown}: preset {name!r} {says}; valid: one of the two")
        form = preset.step_format
        if form is not None and form.delimiter is None and self.step_delimiter is not None:
            raise ValueError(
                f"step_delimiter = {self.step_delimiter!r}: preset {name!r} reads a response as one"
                " step; valid: none"
            )


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
            the model's own. Its prompt ids are always the model's ``reward_prompt_ids``.
        finished: where a finished response is scored, as of ``ScorerSpec``.
    """

    context: int = NO_LIMIT  # most tokens that the model reads at once

    def __init__(
        self,
        chat: Chat,
        position: Position,
        policy_chat: Chat | None,
        finished: Finished = "template",
    ) -> None:
        self.chat, self.position, self.finished = chat, position, finished
        self.policy_tokens = PolicyTokens(policy_chat, chat)

    @property
    def shares_tokenizer(self) -> bool:
        """Whether the policy's token ids are the model's own."""
        return self.policy_tokens.shared

    @abstractmethod
    def prefix_scores(
        self,
        prompts: Sequence[Ids],
        responses: Sequence[Ids],
        cuts: Sequence[Sequence[int]],
        positions: Sequence[Position] = (),
    ) -> list[list[float]]:
        """r(x, y_<t) of N responses.

        Args:
            prompts: N prompts in the model's own ids.
            responses: N responses, likewise.
            cuts: for each response, prefix lengths t in tokens; past the end: the whole response.
            positions: where to score, all in the same pass; empty means the scorer's own.

        Returns:
            N rows of floats: all cuts of the first position, then of the next.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite.
            TextDoesNotFit: a prefix is longer than the model reads.
        """

    def forget(self) -> None:  # noqa: B027
        """Drops what is kept between requests; a kind that keeps something overrides this."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Scores requests in the policy's tokens; result i belongs to request i.

        Raises:
            RewardIsNotFinite: some score is NaN or infinite. A kind that knows whose it is may give
                the NaN instead, and scores the others.
            TextDoesNotFit: a response and its closing have no room in the model's context.
        """
        parts = [self.policy_tokens.requests(request) for request in requests]
        self.check_room([self._longest([part.request for part in some]) for some in parts])
        answers = iter(self.score_own([part.request for some in parts for part in some]))
        results = []
        for request, some in zip(requests, parts, strict=True):
            scores = [math.nan] * len(request.extensions)
            computed = reused = 0
            for part in some:
                answer = next(answers)
                for number, score in zip(part.numbers, answer.scores, strict=True):
                    scores[number] = score
                computed, reused = computed + answer.tokens_computed, reused + answer.tokens_reused
            results.append(Scored(tuple(scores), computed, reused))
        return results

    def score_own(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """As ``score``, of requests in the model's own tokens.

        Every extension is scored as a response by itself. Kinds that can share the prefix's
        computation override this.
        """
        candidates = [
            (request.prompt_ids, request.prefix_ids + extension, self.scored_at(end))
            for request in requests
            for extension, end in zip(request.extensions, request.are_finished, strict=True)
        ]
        scores = [0.0] * len(candidates)
        for position in {at for _, _, at in candidates}:
            numbers = [i for i, (_, _, at) in enumerate(candidates) if at == position]
            prompts, responses, _ = zip(*(candidates[i] for i in numbers), strict=True)
            cuts = [[len(y)] for y in responses]
            values = self.prefix_scores(prompts, responses, cuts, [position])
            for i, (score,) in zip(numbers, values, strict=True):
                scores[i] = score
        tokens = [self.tokens_of_prefixes(x, y, [len(y)], at) for x, y, at in candidates]
        results, start = [], 0
        for request in requests:
            end = start + len(request.extensions)
            results.append(Scored(tuple(scores[start:end]), sum(tokens[start:end])))
            start = end
        return results

    def _longest(self, requests: Sequence[ScoreRequest]) -> int:
        """Tokens of the longest text of some requests in the model's own tokens."""
        return max(
            (
                len(request.prompt_ids)
                + len(request.prefix_ids)
                + len(extension)
                + len(self.closing(self.scored_at(finished)))
                for request in requests
                for extension, finished in zip(
                    request.extensions, request.are_finished, strict=True
                )
            ),
            default=0,
        )

    def scored_at(self, finished: bool) -> Position:
        """Where a candidate is scored that is finished, or is not."""
        return "closed" if finished and self.finished == "template" else self.position

    def tokens_of_prefixes(
        self, prompt: Ids, response: Ids, cuts: Sequence[int], position: Position | None = None
    ) -> int:
        """Tokens computed for the scores of some prefixes of one response, in one pass.

        Without a ``position`` at the scorer's own.
        """
        closing = len(self.closing(position or self.position))
        return len(prompt) + len(response) + len(cuts) * closing

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
