"""Frozen records of the data path; their fields have the names of Parquet columns.

Records do not depend on Ray, models or files. Shapes and units are documented at each field.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]  # {"role": "user" | "assistant" | "system", "content": text}


@dataclass(frozen=True)
class Prompt:
    """One prompt x. ``facts`` is what its grader needs (JSON-able); empty if there is no grader."""

    prompt_id: str
    messages: tuple[Message, ...]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Demonstration:
    """A prompt with one response to imitate (supervised fine-tuning)."""

    prompt: Prompt
    response: str


@dataclass(frozen=True)
class PreferencePair:
    """(x, y_w, y_l): two whole responses of one prompt, the first one preferred."""

    pair_id: str
    prompt: Prompt
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Reject:
    """A rejected row with the reason; it never stops a run."""

    source: str
    row: int
    reason: str
    content: str


@dataclass(frozen=True)
class Cost:
    """What a response cost. Tokens and calls are counts; ``seconds`` is wall time."""

    policy_tokens_sampled: int = 0
    policy_tokens_computed: int = 0
    reward_tokens_computed: int = 0
    reward_tokens_reused: int = 0
    policy_calls: int = 0
    reward_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.policy_tokens_sampled + other.policy_tokens_sampled,
            self.policy_tokens_computed + other.policy_tokens_computed,
            self.reward_tokens_computed + other.reward_tokens_computed,
            self.reward_tokens_reused + other.reward_tokens_reused,
            self.policy_calls + other.policy_calls,
            self.reward_calls + other.reward_calls,
            self.seconds + other.seconds,
        )


StopReason = Literal["end", "length"]


@dataclass(frozen=True)
class Response:
    """What a search method returns for one prompt.

    ``score`` is the scorer's value of the whole response (None without a scorer); ``step_scores``
    are the scores of what was kept at each step, in order; ``stop`` is the reason why the response
    ended: the end token or the length limit. ``margin`` is the smallest margin of its decisions
    (``search/client.py``): a run with different rounding can give another response only if the
    margin is small.
    """

    prompt_id: str
    token_ids: tuple[int, ...]
    stop: StopReason
    score: float | None
    step_scores: tuple[float, ...]
    cost: Cost
    margin: float = math.inf
