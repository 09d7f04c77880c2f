"""Requests, results and protocols of the engines: a policy for samples, a reward model for scores.

Of the engines, search methods see only this module; they know no tokenizers, models or Ray. Token
ids are the policy's; if the reward model has another tokenizer, its engine converts them.
"""

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, Protocol

Ids = tuple[int, ...]
Stop = Literal["end", "length", "entropy", "stop"]


class SequenceDoesNotFit(ValueError):
    """Sequences are empty or longer than an engine's limit; ``rows`` are their indices."""

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


@dataclass(frozen=True)
class SampleRequest:
    """Continuations of one prefix, one for each random stream in ``keys``.

    Sampling stops at the end token or after ``max_new_tokens``.

    Attributes:
        prompt_ids: the prompt.
        prefix_ids: the response so far.
        keys: keys of the random streams.
        max_new_tokens: at least 1.
        greedy: takes the likeliest token and ignores the streams.
        entropy_stop: in nats; also stops before a token whose entropy reaches it, except the first.
        stops: also stops after the token that completes one of these texts in the continuation.
        texts: whether results hold the continuations' texts.
        entropies: whether results hold entropies; ``entropy_stop`` implies it.
    """

    prompt_ids: Ids
    prefix_ids: Ids
    keys: tuple[int, ...]
    max_new_tokens: int
    greedy: bool = False
    entropy_stop: float | None = None
    stops: tuple[str, ...] = ()
    texts: bool = False
    entropies: bool = False

    @property
    def needs_entropies(self) -> bool:
        """Whether entropies are computed, which is slow for a large vocabulary."""
        return self.entropies or self.entropy_stop is not None


@dataclass(frozen=True)
class Continuation:
    """Sampled tokens without the end token. ``entropies`` (nats) are those before each token.

    ``margin`` is the smallest margin of its decisions: the distance of a token's draw to a border
    of its interval of the cumulative distribution (greedy: the gap of the two largest logits), of
    an entropy to ``entropy_stop``, or how far the top-p cut is, in probability, from including
    or excluding another token. ``text`` is None if not requested.
    """

    token_ids: Ids
    stop: Stop
    entropies: tuple[float, ...] = ()
    margin: float = math.inf
    text: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the end token was drawn."""
        return self.stop == "end"


class Extension(Protocol):
    """Tokens to score after a prefix, such as a Continuation or a full Candidate."""

    @property
    def token_ids(self) -> Ids:
        """Its tokens, without the end token."""

    @property
    def finished(self) -> bool:
        """Whether the response ends after it."""


@dataclass(frozen=True)
class Sampled:
    """The continuations of a request in the order of its keys, and their cost in tokens."""

    continuations: tuple[Continuation, ...]
    tokens_sampled: int
    tokens_computed: int


@dataclass(frozen=True)
class TopRequest:
    """A request for the ``count`` likeliest next tokens of a prefix."""

    prompt_ids: Ids
    prefix_ids: Ids
    count: int


@dataclass(frozen=True)
class TopTokens:
    """Next tokens by falling logit; None is the end token.

    ``logits`` are raw, up to a constant per prefix: temperature and top-p are not applied.
    ``margin`` is the gap in logits between the last token here and the next likeliest one.
    """

    token_ids: tuple[int | None, ...]
    logits: tuple[float, ...]
    tokens_computed: int
    margin: float = math.inf


@dataclass(frozen=True)
class ScoreRequest:
    """A request for scores of ``prefix_ids`` with each extension (an empty one: the prefix itself).

    ``finished`` says for each whether the policy has ended its response there; () means that none
    is finished. A finished response and an unfinished prefix of equal text differ.
    """

    prompt_ids: Ids
    prefix_ids: Ids
    extensions: tuple[Ids, ...]
    finished: tuple[bool, ...] = ()

    @property
    def are_finished(self) -> tuple[bool, ...]:
        """``finished``, one for each extension."""
        return self.finished or (False,) * len(self.extensions)


@dataclass(frozen=True)
class Scored:
    """Scores in the order of the request's extensions, and their cost in tokens.

    ``tokens_reused`` counts the tokens that separate forwards would have computed in addition.
    """

    scores: tuple[float, ...]
    tokens_computed: int
    tokens_reused: int = 0


class Policy(Protocol):
    """A policy engine for coroutines; it batches waiting requests."""

    def sample(self, request: SampleRequest) -> Awaitable[Sampled]:
        """Draw the continuations of one request."""

    def top_next_tokens(self, request: TopRequest) -> Awaitable[TopTokens]:
        """Return the likeliest next tokens of one prefix."""


class Reward(Protocol):
    """A reward engine for coroutines; it batches waiting requests."""

    def score(self, request: ScoreRequest) -> Awaitable[Scored]:
        """Score the extensions of one prefix."""
