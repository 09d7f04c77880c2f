"""The two engines a search method asks: a policy for continuations, a reward model for scores.

A method knows these records and protocols and nothing else: no tokenizer, no Ray, no model.
Token ids are the policy's; an engine whose reward model has another tokenizer converts them.
"""

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, Protocol

Ids = tuple[int, ...]
Stop = Literal["end", "length", "entropy", "stop"]


@dataclass(frozen=True)
class SampleRequest:
    """Continuations of one prefix, one for each random stream in ``keys``.

    Sampling stops at the end token, after ``max_new_tokens``, or, with ``entropy_stop`` (nats),
    before the first token (but the first of the request) whose next-token entropy reaches it.
    ``greedy`` takes the likeliest token and ignores the streams. With ``stops`` it ends behind the
    token that completes one of these texts within the continuation's own text. With ``texts`` the
    answers hold that text, with ``entropies`` (or ``entropy_stop``) the entropies.
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
        """Whether entropies are computed; over a large vocabulary that takes a while."""
        return self.entropies or self.entropy_stop is not None


@dataclass(frozen=True)
class Continuation:
    """Sampled tokens, the end token left out. ``entropies`` (nats) are those before each token.

    ``margin`` tells how near its nearest decision was: the least distance of a token's draw to a
    border of its interval of the cumulative distribution (greedy: the gap of the two largest
    logits), of an entropy to ``entropy_stop``, or of top-p's cut to another one. ``text`` is there
    where it was asked for.
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


class Piece(Protocol):
    """What is scored behind a prefix, such as a Continuation or a whole Candidate."""

    @property
    def token_ids(self) -> Ids:
        """Its tokens, the end token left out."""

    @property
    def finished(self) -> bool:
        """Whether the response ends behind it."""


@dataclass(frozen=True)
class Sampled:
    """The continuations of a request in the order of its keys, and the tokens they cost."""

    continuations: tuple[Continuation, ...]
    tokens_sampled: int
    tokens_computed: int


@dataclass(frozen=True)
class TopRequest:
    """The ``count`` likeliest next tokens of a prefix (or draws among all, one for each key)."""

    prompt_ids: Ids
    prefix_ids: Ids
    count: int


@dataclass(frozen=True)
class TopTokens:
    """Next tokens by falling logit; ``None`` stands for the end token. Logits are the model's.

    ``margin`` is the gap between the last one given and the likeliest one left out.
    """

    token_ids: tuple[int | None, ...]
    logits: tuple[float, ...]
    tokens_computed: int
    margin: float = math.inf


@dataclass(frozen=True)
class ScoreRequest:
    """Scores of ``prefix_ids`` followed by each extension (an empty one is the prefix itself).

    ``finished`` says of each whether the policy has ended its response there; () means that none
    is finished. A finished response and an unfinished prefix of the same text are two things.
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
    """Scores in the order of the request's extensions, and what they cost.

    ``tokens_reused`` are those that a forward for each extension would have computed besides.
    """

    scores: tuple[float, ...]
    tokens_computed: int
    tokens_reused: int = 0


class Policy(Protocol):
    """A policy engine, asked by coroutines; it batches whatever is waiting."""

    def sample(self, request: SampleRequest) -> Awaitable[Sampled]:
        """Draws the continuations of one request."""

    def top(self, request: TopRequest) -> Awaitable[TopTokens]:
        """Gives the likeliest next tokens of one prefix."""


class Reward(Protocol):
    """A reward engine, asked by coroutines; it batches whatever is waiting."""

    def score(self, request: ScoreRequest) -> Awaitable[Scored]:
        """Scores the extensions of one prefix."""
