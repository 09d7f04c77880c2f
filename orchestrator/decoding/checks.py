"""What a decoding is given, checked before anything starts: by jobs/decode.py and by ``Decoder``.

``named`` says how a field is written where its value came from: ``--top-p`` or ``top_p``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from orchestrator.choices import Engine, ScorerKind
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.fields import SEEDS

if TYPE_CHECKING:  # these import torch and transformers: after the quick checks
    from orchestrator.scorers.scorer import ScorerSpec

Named = Callable[[str], str]
DTYPES = ("float32", "float64", "bfloat16")


def check_sampling(named: Named, temperature: Any, top_p: Any) -> None:
    """Raises ConfigError for a temperature or a nucleus that no policy samples with."""
    if not _is_number(temperature) or not 0 < temperature < float("inf"):
        raise ConfigError(f"{named('temperature')} = {temperature!r}: valid: a number over 0")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise ConfigError(f"{named('top_p')} = {top_p!r}: valid: a number over 0, at most 1")


def check_seed(named: Named, seed: Any) -> None:
    """Raises ConfigError for what is no seed."""
    if not _is_count(seed) or not 0 <= seed < SEEDS:
        raise ConfigError(f"{named('seed')} = {seed!r}: valid: a number from 0 to 2^63 - 1")


def check_counts(named: Named, **counts: Any) -> None:
    """Raises ConfigError for a count that is no whole number of at least 1."""
    for name, count in counts.items():
        if not _is_count(count) or count < 1:
            raise ConfigError(f"{named(name)} = {count!r}: valid: a whole number of at least 1")


def check_choice(named: Named, **choices: tuple[Any, Sequence[str]]) -> None:
    """Raises ConfigError for a value that is none of those that are valid for its field."""
    for name, (value, valid) in choices.items():
        if value not in valid:
            raise ConfigError(f"{named(name)} = {value!r}: valid: {', '.join(valid)}")


def check_prompts(named: Named, prompts: Any) -> list[Any]:
    """The prompts as a list.

    Raises:
        ConfigError: they are one text or one conversation: its characters or messages would be
            taken for prompts.
    """
    valid = "valid: a list of prompts, each a text or a list of messages"
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        raise ConfigError(f"{named('prompts')} = {shown(prompts)}: no list of prompts; {valid}")
    listed = list(prompts)
    if listed and isinstance(listed[0], Mapping):
        raise ConfigError(f"{named('prompts')}[0] = {shown(listed[0])}: a message; {valid}")
    return listed


def check_room(named: Named, max_new_tokens: int, policy: str) -> None:
    """Raises ConfigError for responses that leave a prompt no room in the policy's context."""
    from orchestrator.checkpoints.checkpoint import context_of

    context = context_of(policy)
    if max_new_tokens >= context:
        raise ConfigError(
            f"{named('max_new_tokens')} = {max_new_tokens}: the policy reads {context} tokens, and"
            f" the prompt needs some; valid: at most {context - 1}"
        )


def check_models(
    named: Named, policy: str, spec: "ScorerSpec | None", engine: "Engine" = "transformers"
) -> "ScorerKind | None":
    """The kind of the reward model, None without one; both models can be loaded and asked.

    Args:
        named: how a field is written.
        policy: folder or hub name.
        spec: the scorer; None without one.
        engine: what loads the policy.

    Raises:
        ConfigError: a checkpoint is not there, is damaged, or is not of its kind.
    """
    from jinja2 import TemplateError

    from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
    from orchestrator.scorers.registry import chat_of
    from orchestrator.scorers.scorer import ScorerSpec
    from orchestrator.scorers.steps import BLANK_LINE, check_delimiter

    if spec is not None and not isinstance(spec, ScorerSpec):
        raise ConfigError(
            f"{named('reward')} = {spec!r}: valid: a folder or hub name, or a ScorerSpec"
        )
    given = {"policy": policy}
    if spec is not None:
        given |= {"reward": spec.checkpoint} | ({} if spec.base is None else {"base": spec.base})
    for name, checkpoint in given.items():
        if not isinstance(checkpoint, str):
            raise ConfigError(f"{named(name)} = {checkpoint!r}: valid: a folder or hub name")
        check_checkpoint(named(name), checkpoint)
    try:
        check_policy(policy, engine)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{named('policy')} = {policy!r}: {error}") from error
    if spec is None:
        return None
    try:
        kind = check_scorer(spec)
        if spec.aggregation is not None and kind in ("sequence", "encoder"):
            check_delimiter(chat_of(spec), spec.step_delimiter or BLANK_LINE)
    except (ValueError, OSError, TemplateError) as error:
        raise ConfigError(f"{named('reward')} = {spec.checkpoint!r}: {error}") from error
    return kind


def check_dtype(named: Named, dtype: Any, kind: "ScorerKind | None") -> None:
    """Raises ConfigError for a dtype that is not known, or not computed for a kind of scorer."""
    check_choice(named, dtype=(dtype, DTYPES))
    if dtype != "float32" and kind not in (None, "sequence"):
        raise ConfigError(
            f"{named('dtype')} = {dtype!r}: the reward model is of kind {kind}; valid: float32, or"
            " one of kind sequence"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
