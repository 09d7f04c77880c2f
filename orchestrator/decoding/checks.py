"""Checks of the arguments of decoding, before it starts: for jobs/decode.py and ``Decoder``.

``named`` returns a field's name as the user wrote it: ``--top-p`` or ``top_p``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeGuard

from orchestrator.choices import Engine
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.errors import ConfigError, reason_about, shown
from orchestrator.fields.types import SEEDS
from orchestrator.scorers.kind import ScorerKind, kinds_in_order

if TYPE_CHECKING:  # these import torch and transformers, so they come after the quick checks
    from orchestrator.scorers.spec import ScorerSpec

Named = Callable[[str], str]
DTYPES = ("float32", "float64", "bfloat16")


def check_sampling(named: Named, temperature: object, top_p: object) -> None:
    """Raise ConfigError for an invalid temperature or nucleus."""
    if not _is_number(temperature) or temperature <= 0:
        raise ConfigError(
            f"{named('temperature')} = {temperature!r}: valid: a finite number over 0"
        )
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise ConfigError(f"{named('top_p')} = {top_p!r}: valid: a number over 0, at most 1")


def check_seed(named: Named, seed: object) -> None:
    """Raise ConfigError for an invalid seed."""
    if not _is_count(seed) or not 0 <= seed < SEEDS:
        raise ConfigError(f"{named('seed')} = {seed!r}: valid: a whole number from 0 to 2^63 - 1")


def check_counts(named: Named, **counts: object) -> None:
    """Raise ConfigError for a count that is not an integer of at least 1."""
    for name, count in counts.items():
        if not _is_count(count) or count < 1:
            raise ConfigError(f"{named(name)} = {count!r}: valid: a whole number of at least 1")


def check_choice(named: Named, **choices: tuple[object, Sequence[str]]) -> None:
    """Raise ConfigError for a value that is not among its field's valid ones."""
    for name, (value, valid) in choices.items():
        if value not in valid:
            raise ConfigError(f"{named(name)} = {value!r}: valid: {', '.join(valid)}")


def check_prompts(named: Named, prompts: object) -> list[Any]:
    """Return the prompts as a list.

    Raises:
        ConfigError: they are one text or one conversation, whose characters or messages would be
            used as prompts.
    """
    valid = "valid: a list of prompts, each a text or a list of messages"
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        raise ConfigError(f"{named('prompts')} = {shown(prompts)}: not a list of prompts; {valid}")
    listed = list(prompts)
    if listed and isinstance(listed[0], Mapping):
        raise ConfigError(
            f"{named('prompts')}[0] = {shown(listed[0])}: a message, not a prompt; {valid}"
        )
    return listed


def check_max_new_tokens(named: Named, max_new_tokens: int, policy: str) -> None:
    """Raise ConfigError if responses leave no room for a prompt in the policy's context."""
    from orchestrator.checkpoints.checkpoint import context_of

    context = context_of(policy)
    if max_new_tokens >= context:
        raise ConfigError(
            f"{named('max_new_tokens')} = {max_new_tokens}: the context of the policy is {context}"
            f" tokens, and a prompt needs at least one; valid: at most {context - 1}"
        )


def check_models(
    named: Named, policy: str, spec: "ScorerSpec | None", engine: "Engine" = "transformers"
) -> ScorerKind | None:
    """Check both models; return the kind of the reward model, None without one.

    Args:
        named: returns a field's name as the user wrote it.
        policy: folder or hub name.
        spec: the scorer; None without one.
        engine: what loads the policy.

    Raises:
        ConfigError: a checkpoint does not exist, is damaged, or is of another kind.
    """
    from jinja2 import TemplateError

    from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
    from orchestrator.scorers.formats import BLANK_LINE
    from orchestrator.scorers.loading import chat_of
    from orchestrator.scorers.spec import ScorerSpec
    from orchestrator.scorers.steps import check_delimiter

    if spec is not None and not isinstance(spec, ScorerSpec):
        raise ConfigError(
            f"{named('reward')} = {spec!r}: valid: a folder or hub name, or a ScorerSpec"
        )
    checkpoints = {"policy": policy}
    if spec is not None:
        checkpoints |= {"reward": spec.checkpoint}
        checkpoints |= {} if spec.base is None else {"base": spec.base}
    for name, checkpoint in checkpoints.items():
        if not isinstance(checkpoint, str):
            raise ConfigError(f"{named(name)} = {checkpoint!r}: valid: a folder or hub name")
        check_checkpoint(named(name), checkpoint)
    try:
        check_policy(policy, engine)
    except (ValueError, OSError) as error:
        reason = reason_about(policy, error)
        raise ConfigError(f"{named('policy')} = {policy!r}: {reason}") from error
    if spec is None:
        return None
    try:
        kind = check_scorer(spec)
        if spec.aggregation is not None and not kind.aggregates_steps:
            check_delimiter(chat_of(spec), spec.step_delimiter or BLANK_LINE)
    except (ValueError, OSError, TemplateError) as error:
        reason = reason_about(spec.checkpoint, error)
        raise ConfigError(f"{named('reward')} = {spec.checkpoint!r}: {reason}") from error
    return kind


def check_dtype(named: Named, dtype: object, kind: ScorerKind | None) -> None:
    """Raise ConfigError for a dtype that is unknown, or not supported by a kind of scorer."""
    check_choice(named, dtype=(dtype, DTYPES))
    if kind is not None and dtype not in kind.dtypes:
        valid = " or ".join(n for n, other in kinds_in_order().items() if dtype in other.dtypes)
        raise ConfigError(
            f"{named('dtype')} = {dtype!r}: the reward model is of kind {kind.name}; valid:"
            f" {', '.join(kind.dtypes)}, or a reward model of kind {valid}"
        )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
