"""Checks of the checkpoints that a config names: the kind of each model and its chat template.

They read configs, tokenizers and the names of weights, but no weights, before anything starts.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from orchestrator.checkpoints.checkpoint import check_reward_model_from_policy, context_of
from orchestrator.config.engine_choice import engine_of
from orchestrator.config.errors import ConfigError, reason_about, shown
from orchestrator.config.no_effect import messages, no_effect_of_variant
from orchestrator.config.scorers import outcome_spec, variant_spec
from orchestrator.config.sections import TRAINED_KIND, Reading, Variant
from orchestrator.config.tree import Config
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.engines.vllm.process import check_served
from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
from orchestrator.scorers.detect import inspect_checkpoint, scorer_kind
from orchestrator.scorers.formats import BLANK_LINE
from orchestrator.scorers.kind import ScorerKind, kinds_in_order, make_kind
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.steps import is_written, lost_in_tokens

Result = TypeVar("Result")


def check_models(config: Config) -> None:
    """Check every checkpoint that the config names.

    Raises:
        ConfigError: a model has the wrong kind for its field (a reward model without a reward head,
            a policy that is not a language model), or fields that have no effect; its tokenizer has
            no chat template, or cannot write the delimiter of steps; the context of the policy is
            too short; the engine or the dtype does not fit a model; or no scorer has the KV cache
            whose size is set.
    """
    models = config.models
    if models.policy is not None:
        _as_language_model("models.policy", models.policy)
        _check_max_new_tokens(config, models.policy)
        has_partial_pairs = any(variant.takes_partial_pairs for variant in config.variants.values())
        trains_reference = models.reference is None and has_partial_pairs
        if models.orm is None or trains_reference:  # they start from the policy
            policy = models.policy
            _checked("models.policy", policy, lambda: check_reward_model_from_policy(policy))
    if models.orm is not None:
        _as_orm(config, models.orm)
    if models.reference is not None:
        _as_scorer("models.reference", _outcome_spec(config, "reference", models.reference))
    for name, variant in config.variants.items():
        _check_variant(config, f"variants.{name}", variant)
        _check_steps(config, name, variant)
    _check_engine(config)
    _check_caches(config)
    for entry in config.search.entries:
        if (delimiter := entry.method.step_delimiter) is not None:
            _check_delimiter(config, f"{entry.path}.delimiter", delimiter)


def _check_max_new_tokens(config: Config, policy: str) -> None:
    """Check that the context of the policy holds a prompt and a response."""
    context, limit = context_of(policy), config.decoding.max_new_tokens
    if limit >= context:
        raise ConfigError(
            f"decoding.max_new_tokens = {limit}: the context of models.policy is {context}"
            f" tokens, and a prompt needs at least one; valid: at most {context - 1}"
        )


def _chat(config: Config, checkpoint: str | None) -> Chat | None:
    """Return the chat format of a checkpoint, or of the models that the run trains.

    None if the run trains a byte-level tokenizer, which keeps any text.
    """
    if checkpoint is not None:
        return load_chat(checkpoint)
    if (words := config.data.vocabulary()) is not None:
        tokenizer = word_tokenizer(words)
        return Chat(tokenizer, (), tokenizer.chat_template)
    return None


def _check_delimiter(config: Config, field: str, delimiter: str) -> None:
    """Check that the policy can write the delimiter; otherwise no step would end."""
    chat = _chat(config, config.models.policy)
    if chat is not None and not is_written(chat, delimiter):
        raise ConfigError(f"{field} = {shown(delimiter)}: {lost_in_tokens('the policy')}")


def _check_steps(config: Config, scorer: str, variant: Variant) -> None:
    """Check that the scorer's tokenizer keeps the delimiter of the steps that are aggregated."""
    if variant.aggregation is None:
        return
    field, checkpoint = f"variants.{scorer}", variant.checkpoint
    if checkpoint is None:
        from_orm = variant.is_trained_from_orm
        checkpoint = (from_orm and config.models.orm) or config.models.policy
    elif not variant.has_base and _kind(config, scorer).aggregates_steps:
        return  # its format has the delimiter
    chat, delimiter = _chat(config, checkpoint), variant.step_delimiter or BLANK_LINE
    if chat is not None and not is_written(chat, delimiter):
        raise ConfigError(
            f"{field}.aggregation = {variant.aggregation!r}: needs steps that end with"
            f" {shown(delimiter)}, and the model's tokenizer loses this text when it encodes and"
            f" decodes it; valid: null, or set {field}.step_delimiter to a text that is unchanged"
            " after encoding and decoding, such as '.'"
        )


def _outcome_spec(config: Config, model: str, checkpoint: str) -> ScorerSpec:
    """Return the spec of the ORM or the reference; fields that contradict are a ConfigError."""
    try:
        return outcome_spec(config, model, checkpoint)
    except ValueError as error:
        raise ConfigError(f"models.{model}_reading: {error}") from error


def _variant_spec(
    config: Config, field: str, variant: Variant, checkpoint: str, base: str | None = None
) -> ScorerSpec:
    """Return the spec of a variant; fields that contradict are a ConfigError."""
    try:
        return variant_spec(config, variant, checkpoint, base)
    except ValueError as error:
        raise ConfigError(f"{field}: {error}") from error


def _check_engine(config: Config) -> None:
    """Raise ConfigError if vLLM cannot run the models, or the dtype does not fit the engine."""
    wanted = config.search.engine
    for scorer in config.scorers:
        kind, checkpoint = _kind(config, scorer), _checkpoint(config, scorer)
        dtype = config.search.dtype
        if dtype != "float32" and (wanted == "vllm" or dtype not in kind.dtypes):
            valid = ", ".join(n for n, k in kinds_in_order().items() if dtype in k.dtypes)
            raise ConfigError(
                f"search.dtype = {dtype!r}: scorer {scorer} is of kind {kind.name}, and"
                f" search.engine is {wanted}; valid: float32, or only scorers of kind {valid} with"
                " transformers"
            )
        try:
            engine_of(wanted, None, kind)
        except ValueError as error:
            raise ConfigError(
                f"search.engine = {wanted!r}: {error} (scorer {scorer}); valid: auto,"
                f" transformers, or scorers without {scorer}"
            ) from None
        if wanted == "vllm" and checkpoint is not None:
            check = partial(kind.check_vllm, _spec(config, scorer, checkpoint))
            _checked("search.engine = 'vllm', scorer", checkpoint, check)
    if wanted == "vllm" and config.models.policy is not None:
        policy = config.models.policy
        _checked("search.engine = 'vllm', models.policy", policy, lambda: check_served(policy))


def _checkpoint(config: Config, scorer: str) -> str | None:
    """Return the checkpoint of a scorer; None if the run trains it."""
    if scorer in ("orm", "reference"):
        return getattr(config.models, scorer)  # type: ignore[no-any-return]
    return config.variants[scorer].checkpoint


def _kind(config: Config, scorer: str) -> ScorerKind:
    """Return the kind of a scorer of the run."""
    variant, checkpoint = config.variants.get(scorer), _checkpoint(config, scorer)
    if variant is not None and variant.scorer_kind is not None:
        return make_kind(variant.scorer_kind, variant.options)
    if checkpoint is None:
        return make_kind(TRAINED_KIND, {})
    return scorer_kind(_spec(config, scorer, checkpoint))


def _spec(config: Config, scorer: str, checkpoint: str) -> ScorerSpec:
    """Return the spec of a scorer that has a checkpoint in the config."""
    variant = config.variants.get(scorer)
    if variant is None:
        return _outcome_spec(config, scorer, checkpoint)
    return _variant_spec(config, f"variants.{scorer}", variant, checkpoint)


def _check_caches(config: Config) -> None:
    """Raise ConfigError for the size of a KV cache that no scorer has."""
    size = config.cluster.reward_cache_mib
    scorers = dict.fromkeys(["orm", *config.scorers, *config.variants])
    if size is not None and not any(_kind(config, scorer).keeps_cache for scorer in scorers):
        kinds = " or ".join(n for n, kind in kinds_in_order().items() if kind.keeps_cache)
        raise ConfigError(
            f"cluster.reward_cache_mib = {size}: it has no effect: no scorer is of kind {kinds};"
            " valid: null"
        )


def _check_variant(config: Config, field: str, variant: Variant) -> None:
    policy = config.models.policy
    if variant.has_base:
        for part in ("checkpoint", "base"):
            if (named := getattr(variant, part)) is not None:
                _as_language_model(f"{field}.{part}", named)
        numerator, base = variant.checkpoint or policy, variant.base or policy
        if not variant.is_trained and (numerator is None or base is None):
            _check_words(config, field, variant)
        elif not variant.is_trained:
            assert numerator is not None
            spec = _variant_spec(config, field, variant, numerator, base)
            _checked(f"{field}.checkpoint", numerator, lambda: check_scorer(spec))
    elif variant.checkpoint is not None:
        spec = _variant_spec(config, field, variant, variant.checkpoint)
        kind = _as_scorer(f"{field}.checkpoint", spec)
        items = no_effect_of_variant(field, variant, kind.name)
        if lines := [line for item in items for line in messages(config, item)]:
            raise ConfigError("\n".join(lines))


def _check_words(config: Config, field: str, variant: Variant) -> None:
    """Check that the user's model in a log ratio has the tokens of the other model.

    The other model is the policy that the run trains.
    """
    chat = _chat(config, None)
    if chat is None:
        return  # the tokenizer is made from the data, which is not read yet
    for part in ("checkpoint", "base"):
        named = getattr(variant, part)
        if named and load_chat(named).tokenizer.get_vocab() != chat.tokenizer.get_vocab():
            raise ConfigError(
                f"{field}.{part} = {shown(named)}: a log ratio needs two models with the same"
                " tokens, and the policy that the run trains has other tokens; valid: a model with"
                " the tokens of the embedded world, or set models.policy"
            )


def _as_orm(config: Config, checkpoint: str) -> None:
    field = "models.orm"
    kind = _as_scorer(field, _outcome_spec(config, "orm", checkpoint))
    trained = [name for name, variant in config.variants.items() if variant.is_trained_from_orm]
    if trained and not kind.is_trainable:
        raise ConfigError(
            f"{field} = {shown(checkpoint)}: the variants {', '.join(trained)} are trained from"
            " it, which needs a head of one label on a causal backbone; it is"
            f" {inspect_checkpoint(checkpoint).description}; valid: another ORM, or a config"
            " without these variants"
        )


def _as_scorer(field: str, spec: ScorerSpec) -> ScorerKind:
    reading = f"{field}_reading" if field in ("models.orm", "models.reference") else None
    kind: ScorerKind = _checked(field, spec.checkpoint, lambda: check_scorer(spec), reading)
    if kind.needs_template(spec):
        _check_template(field, spec.checkpoint)
    return kind


def _as_language_model(field: str, checkpoint: str) -> None:
    _checked(field, checkpoint, lambda: check_policy(checkpoint))
    _check_template(field, checkpoint)


def _check_template(field: str, checkpoint: str) -> None:
    """Check that a model has a chat template; no default format is assumed."""
    chat = _checked(field, checkpoint, lambda: load_chat(checkpoint))
    if chat.tokenizer.chat_template is None and not chat.text_pair:
        raise ConfigError(
            f"{field} = {shown(checkpoint)}: its tokenizer has no chat template, so the format of"
            " a prompt is unknown; valid: a checkpoint folder with a chat_template.jinja"
        )


def _checked(
    field: str, checkpoint: str, check: Callable[[], Result], reading: str | None = None
) -> Result:
    """Return what ``check`` returns; its error becomes a ConfigError that names the field.

    ``reading`` is the section with the fields of this checkpoint that the error may name.
    """
    try:
        return check()
    except (ValueError, OSError) as error:
        reason = reason_about(checkpoint, error)
        named = [name for name in Reading.model_fields if re.search(rf"\b{name}\b", reason)]
        if reading and named:
            reason += f" (fields of {reading}: {', '.join(named)})"
        raise ConfigError(f"{field} = {shown(checkpoint)}: {reason}") from error
