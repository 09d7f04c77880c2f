"""Counts of a config that do not go together, whatever machine it runs on.

Attention heads and hidden size, the fields of a task, contexts and what they must
hold, warm-ups and trainings. What a machine has no room for: `sizes.py`.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tree checks itself by this module
    from orchestrator.config.tree import Config

TEMPLATE = 3  # tokens of a prompt's template, at least
CUTS_OF_SST = 2  # times sst_k, at most, of a pair
CUTS_OF_OFFICIAL = 11


def refuse_extents(config: "Config") -> None:
    """Checks that the config's counts go together.

    Raises:
        ValueError: one line for each that does not.
    """
    if lines := [*_heads(config), *config.data.refusals(), *_contexts(config), *_warmups(config)]:
        raise ValueError("\n".join(lines))


def _heads(config: "Config") -> Iterator[str]:
    size, place = config.models.architecture, "models.architecture"
    heads = size.num_attention_heads
    if size.hidden_size % heads:
        yield (
            f"{place}.hidden_size = {size.hidden_size}: must be a multiple of num_attention_heads"
            f" ({heads})"
        )
    elif size.hidden_size // heads % 2:
        yield (
            f"{place}.hidden_size = {size.hidden_size}: {heads} heads of"
            f" {size.hidden_size // heads} numbers, and rotary positions turn pairs of them;"
            f" valid: an even number for each, such as hidden_size {size.hidden_size + heads}"
        )
    if heads % size.num_key_value_heads:
        yield (
            f"{place}.num_key_value_heads = {size.num_key_value_heads}: must divide"
            f" num_attention_heads ({heads})"
        )


def _contexts(config: "Config") -> Iterator[str]:
    """The policy that the run trains must read a prompt and a response."""
    if config.models.policy is not None:
        return
    room, limit = config.models.architecture.max_position_embeddings, config.decoding.max_new_tokens
    prompt = config.data.longest_prompt or TEMPLATE + 1
    if limit >= room:
        yield (
            f"decoding.max_new_tokens = {limit}: must leave room for a prompt in"
            f" models.architecture.max_position_embeddings ({room})"
        )
    elif limit + prompt > room:
        yield (
            f"models.architecture.max_position_embeddings = {room}: a prompt takes up to {prompt}"
            f" tokens, and decoding.max_new_tokens = {limit} are a response's; valid: at least"
            f" {limit + prompt}"
        )


def _warmups(config: "Config") -> Iterator[str]:
    counts = config.data.row_counts
    for name in ("policy", "orm", "reference", "prm", "implicit"):
        given = getattr(config.training, name)
        steps = given.max_steps
        if not _is_trained(config, name):
            continue
        if steps is None and counts is not None:
            steps = given.epochs * ceil(_most_rows(config, counts, name) / given.batch_size)
        if steps is not None and given.warmup_steps > steps:
            yield _too_long(name, given.warmup_steps, steps)


def too_long_warmups(config: "Config", rows: Mapping[str, float]) -> list[str]:
    """As of ``refuse_extents``, for trainings by name whose rows are counted by now."""
    found = []
    for name, count in rows.items():
        given = getattr(config.training, name)
        steps = given.max_steps or given.epochs * ceil(count / given.batch_size)
        if count and given.warmup_steps > steps:
            found.append(_too_long(name, given.warmup_steps, steps))
    return found


def _too_long(training: str, warmup: int, steps: int) -> str:
    return (
        f"training.{training}.warmup_steps = {warmup}: longer than the training, which has"
        f" {steps} steps; valid: at most {steps}"
    )


def _is_trained(config: "Config", training: str) -> bool:
    """Whether a run has a training of this section."""
    variants = config.variants.values()
    if training == "prm":
        return any(v.is_trained_from_orm for v in variants)
    if training == "implicit":
        return any(v.is_trained_from_policy for v in variants)
    needed = training != "reference" or any(v.takes_partial_pairs for v in variants)
    return needed and getattr(config.models, training) is None


def _most_rows(config: "Config", counts: Mapping[str, int], training: str) -> int:
    """Rows, or partial pairs, of an epoch, at most."""
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
