"""Checks of counts that contradict each other, independent of the machine.

Attention heads and hidden size, fields of the task, context lengths and responses, warm-up and
training steps. `sizes.py` checks memory and disk.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tree calls this module
    from orchestrator.config.tree import Config

TEMPLATE_TOKENS = 3  # least number of tokens that a prompt's template adds
CUTS_OF_SST = 2  # times sst_k: the maximum number of cuts of a pair
CUTS_OF_OFFICIAL = 11


def check_counts(config: "Config") -> None:
    """Check that the config's counts do not contradict each other.

    Raises:
        ValueError: one line for each contradiction.
    """
    if lines := [
        *_heads(config),
        *config.data.contradictions(),
        *_contexts(config),
        *_warmups(config),
    ]:
        raise ValueError("\n".join(lines))


def _heads(config: "Config") -> Iterator[str]:
    size, path = config.models.architecture, "models.architecture"
    heads = size.num_attention_heads
    if size.hidden_size % heads:
        yield (
            f"{path}.hidden_size = {size.hidden_size}: must be a multiple of num_attention_heads"
            f" ({heads})"
        )
    elif size.hidden_size // heads % 2:
        yield (
            f"{path}.hidden_size = {size.hidden_size}: {heads} heads of"
            f" dimension {size.hidden_size // heads}, but rotary positions need an even dimension;"
            f" valid: for example {size.hidden_size + heads}"
        )
    if heads % size.num_key_value_heads:
        yield (
            f"{path}.num_key_value_heads = {size.num_key_value_heads}: must divide"
            f" num_attention_heads ({heads})"
        )


def _contexts(config: "Config") -> Iterator[str]:
    """Check that the context of a policy that the run trains holds a prompt and a response."""
    if config.models.policy is not None:
        return
    room, limit = config.models.architecture.max_position_embeddings, config.decoding.max_new_tokens
    prompt = config.data.longest_prompt or TEMPLATE_TOKENS + 1
    if limit >= room:
        smaller = f"at most {room - prompt}, or " if room > prompt else ""
        yield (
            f"decoding.max_new_tokens = {limit}: must leave room for a prompt in"
            f" models.architecture.max_position_embeddings ({room}); valid: {smaller}a larger"
            " max_position_embeddings"
        )
    elif limit + prompt > room:
        yield (
            f"models.architecture.max_position_embeddings = {room}: a prompt has up to {prompt}"
            f" tokens, and a response up to decoding.max_new_tokens = {limit}; valid: at least"
            f" {limit + prompt}"
        )


def _warmups(config: "Config") -> Iterator[str]:
    counts = config.data.row_counts
    for name in ("policy", "orm", "reference", "prm", "implicit"):
        settings = getattr(config.training, name)
        steps = settings.max_steps
        if not _is_trained(config, name):
            continue
        if steps is None and counts is not None:
            steps = settings.epochs * ceil(_most_rows(config, counts, name) / settings.batch_size)
        if steps is not None and settings.warmup_steps > steps:
            yield _too_long(name, settings.warmup_steps, steps)


def too_long_warmups(config: "Config", rows: Mapping[str, float]) -> list[str]:
    """Return the errors of warm-ups that are longer than their training.

    Args:
        config: the config.
        rows: number of rows of each training, by name.
    """
    errors = []
    for name, count in rows.items():
        settings = getattr(config.training, name)
        steps = settings.max_steps or settings.epochs * ceil(count / settings.batch_size)
        if count and settings.warmup_steps > steps:
            errors.append(_too_long(name, settings.warmup_steps, steps))
    return errors


def _too_long(training: str, warmup: int, steps: int) -> str:
    return (
        f"training.{training}.warmup_steps = {warmup}: longer than the training, which has"
        f" {steps} steps; valid: at most {steps}"
    )


def _is_trained(config: "Config", training: str) -> bool:
    """Whether the run trains a model with this section of ``training``."""
    variants = config.variants.values()
    if training == "prm":
        return any(v.is_trained_from_orm for v in variants)
    if training == "implicit":
        return any(v.is_trained_from_policy for v in variants)
    needed = training != "reference" or any(v.takes_partial_pairs for v in variants)
    return needed and getattr(config.models, training) is None


def _most_rows(config: "Config", counts: Mapping[str, int], training: str) -> int:
    """Return an upper bound of the rows, or partial pairs, of an epoch."""
    if training == "implicit":
        return counts["orm"] + counts["prm"]
    if training != "prm":
        return counts[training]
    trained = [v for v in config.variants.values() if v.takes_partial_pairs]
    cuts = [1]
    for variant in trained:
        if variant.truncation == "tlt":
            cuts.append(config.decoding.max_new_tokens)
        elif config.partial.preset == "official":
            cuts.append(CUTS_OF_OFFICIAL)
        else:
            cuts.append(CUTS_OF_SST * config.partial.sst_k)
    return counts["prm"] * max(cuts)
