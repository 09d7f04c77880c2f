"""Checks that need a look into the given checkpoints: what kind of model each is, and its template.

Reads configs, tokenizers and the names of weights, never weights: before anything starts.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from orchestrator.checkpoints.checkpoint import check_start, context_of
from orchestrator.choices import ScorerKind
from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.scorers import outcome_spec, variant_spec
from orchestrator.config.sections import Variant
from orchestrator.config.tree import Config
from orchestrator.config.unread import messages, unread_of_variant
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.decoding.engines import engine_of
from orchestrator.engines.vllm.process import check_served
from orchestrator.scorers.checkpoint_checks import check_policy, check_scorer
from orchestrator.scorers.detect import kind_of, nature_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.steps import BLANK_LINE, is_written
from orchestrator.scorers.vllm_scorer import check_model


def check_models(config: Config) -> None:
    """Looks at every checkpoint that the config gives.

    Raises:
        ConfigError: a model is not of a kind that its place needs (a reward model without a reward
            head, a policy that is none), its tokenizer has no chat template, or a policy cannot
            write what ends the steps of a search.
    """
    models = config.models
    if models.policy is not None:
        _as_language_model("models.policy", models.policy)
        _check_room(config, models.policy)
        partly = any(variant.takes_partial_pairs for variant in config.variants.values())
        if models.orm is None or (models.reference is None and partly):  # trained from it
            policy = models.policy
            _told("models.policy", policy, lambda: check_start(policy))
    if models.orm is not None:
        _as_orm(config, models.orm)
    if models.reference is not None:
        _as_scorer("models.reference", _outcome(config, "reference", models.reference))
    for name, variant in config.variants.items():
        _check_variant(config, f"variants.{name}", variant)
        _check_steps(config, f"variants.{name}", variant)
    _check_engine(config)
    _check_caches(config)
    for entry in config.search.entries:
        if (delimiter := entry.method.step_delimiter) is not None:
            _check_delimiter(config, f"{entry.path}.delimiter", delimiter)


def _check_room(config: Config, policy: str) -> None:
    """A given policy must read a prompt and a response."""
    context, limit = context_of(policy), config.decoding.max_new_tokens
    if limit >= context:
        raise ConfigError(
            f"decoding.max_new_tokens = {limit}: models.policy reads {context} tokens, and the"
            f" prompt needs some; valid: at most {context - 1}"
        )


def _chat(config: Config, checkpoint: str | None) -> Chat | None:
    """The tokenizer and template of a given model, else of the run's own; None of any text."""
    if checkpoint is not None:
        return load_chat(checkpoint)
    if (words := config.data.vocabulary()) is not None:
        tokenizer = word_tokenizer(words)
        return Chat(tokenizer, (), tokenizer.chat_template)
    return None  # the run's own byte-level tokenizer writes any text


def _check_delimiter(config: Config, place: str, delimiter: str) -> None:
    """A step that no text of the policy can end would be the whole response."""
    chat = _chat(config, config.models.policy)
    if chat is not None and not is_written(chat, delimiter):
        raise ConfigError(
            f"{place} = {shown(delimiter)}: the policy's tokenizer does not keep it, so no step"
            " would ever end; valid: a text that it keeps, such as '.'"
        )


def _check_steps(config: Config, place: str, variant: Variant) -> None:
    """An aggregation is of steps, whose delimiter the scorer's tokenizer must keep."""
    if variant.aggregation is None:
        return
    checkpoint = variant.checkpoint
    if checkpoint is None:
        from_orm = variant.is_trained_from_orm
        checkpoint = (from_orm and config.models.orm) or config.models.policy
    elif not variant.is_log_ratio:
        kind = kind_of(_variant(config, place, variant, checkpoint))
        if kind not in ("sequence", "encoder"):
            return  # it has steps of its own
    chat, delimiter = _chat(config, checkpoint), variant.step_delimiter or BLANK_LINE
    if chat is not None and not is_written(chat, delimiter):
        raise ConfigError(
            f"{place}.aggregation = {variant.aggregation!r}: of steps that end with"
            f" {shown(delimiter)}, which the model's tokenizer does not keep; valid: a"
            f" {place}.step_delimiter that it keeps, such as '.', or null"
        )


def _outcome(config: Config, model: str, checkpoint: str) -> ScorerSpec:
    """The spec of the ORM or the reference; what does not go together as the config's error."""
    try:
        return outcome_spec(config, model, checkpoint)
    except ValueError as error:
        raise ConfigError(f"models.{model}_reading: {error}") from error


def _variant(config: Config, place: str, variant: Variant, checkpoint: str) -> ScorerSpec:
    """The spec of a variant; what does not go together as the config's error."""
    try:
        return variant_spec(config, variant, checkpoint)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error


def _check_engine(config: Config) -> None:
    """Raises ConfigError where vLLM is asked for what it does not run."""
    wanted = config.search.engine
    for scorer in config.scorers:
        kind, checkpoint = _kind(config, scorer), _checkpoint(config, scorer)
        dtype, others = config.search.dtype, kind == "sequence" and wanted != "vllm"
        if dtype != "float32" and not others:
            raise ConfigError(
                f"search.dtype = {dtype!r}: scorer {scorer} is of kind {kind}, search.engine is"
                f" {wanted}; valid: float32, or scorers of kind sequence alone on transformers"
            )
        try:
            engine_of(wanted, "cbs", kind)
        except ValueError as error:
            raise ConfigError(
                f"search.engine = {wanted!r}: {error} (scorer {scorer}); valid: auto,"
                " transformers, or without that scorer"
            ) from None
        if wanted == "vllm" and checkpoint is not None:
            _told("search.engine = 'vllm', scorer", checkpoint, partial(check_model, checkpoint))
    if wanted == "vllm" and config.models.policy is not None:
        policy = config.models.policy
        _told("search.engine = 'vllm', models.policy", policy, lambda: check_served(policy))


def _checkpoint(config: Config, scorer: str) -> str | None:
    """The given checkpoint of a scorer; None of one that the run trains."""
    if scorer in ("orm", "reference"):
        return getattr(config.models, scorer)  # type: ignore[no-any-return]
    return config.variants[scorer].checkpoint


def _kind(config: Config, scorer: str) -> ScorerKind:
    """The kind of a scorer of the run: one that the run trains from the ORM is a sequence."""
    variant, checkpoint = config.variants.get(scorer), _checkpoint(config, scorer)
    if variant is not None and variant.is_log_ratio:
        return "log_ratio"
    if checkpoint is None:
        return "sequence"
    if variant is None:
        return kind_of(_outcome(config, scorer, checkpoint))
    return kind_of(_variant(config, f"variants.{scorer}", variant, checkpoint))


def _check_caches(config: Config) -> None:
    """Raises ConfigError for a cache that no scorer keeps."""
    size = config.cluster.reward_cache_mib
    scorers = dict.fromkeys(["orm", *config.scorers, *config.variants])
    if size is not None and "sequence" not in {_kind(config, scorer) for scorer in scorers}:
        raise ConfigError(
            f"cluster.reward_cache_mib = {size}: it has no effect: no scorer is of kind sequence;"
            " valid: null"
        )


def _check_variant(config: Config, place: str, variant: Variant) -> None:
    policy = config.models.policy
    if variant.is_log_ratio:
        for part in ("checkpoint", "base"):
            if (named := getattr(variant, part)) is not None:
                _as_language_model(f"{place}.{part}", named)
        numerator, base = variant.checkpoint or policy, variant.base or policy
        if not variant.is_trained and (numerator is None or base is None):
            _check_words(config, place, variant)
        elif not variant.is_trained:
            assert numerator is not None
            spec = ScorerSpec(numerator, "log_ratio", base=base)
            _told(f"{place}.checkpoint", numerator, lambda: check_scorer(spec))
    elif variant.checkpoint is not None:
        spec = _variant(config, place, variant, variant.checkpoint)
        kind = _as_scorer(f"{place}.checkpoint", spec)
        items = unread_of_variant(place, variant, kind)
        if lines := [line for item in items for line in messages(config, item)]:
            raise ConfigError("\n".join(lines))


def _check_words(config: Config, place: str, variant: Variant) -> None:
    """A ratio to the policy that the run trains is of that policy's tokens."""
    own = _chat(config, None)
    if own is None:
        return  # made of the data: not known yet
    for part in ("checkpoint", "base"):
        named = getattr(variant, part)
        if named and load_chat(named).tokenizer.get_vocab() != own.tokenizer.get_vocab():
            raise ConfigError(
                f"{place}.{part} = {shown(named)}: a log ratio is of the same tokens under both"
                " models, and the policy that the run trains has other ones; valid: a model of the"
                " world's words, or models.policy"
            )


def _as_orm(config: Config, checkpoint: str) -> None:
    place = "models.orm"
    kind = _as_scorer(place, _outcome(config, "orm", checkpoint))
    trained = [name for name, variant in config.variants.items() if variant.is_trained_from_orm]
    if trained and kind != "sequence":
        raise ConfigError(
            f"{place} = {shown(checkpoint)}: variants ({', '.join(trained)}) are trained from it,"
            f" which needs a head of one label on a causal backbone; this is"
            f" {nature_of(checkpoint).what}; valid: another ORM, or no such variants"
        )


def _as_scorer(place: str, spec: ScorerSpec) -> str:
    kind = _told(place, spec.checkpoint, lambda: check_scorer(spec))
    if kind != "step_tag" or nature_of(spec.checkpoint).form != "language model":
        _check_template(place, spec.checkpoint)  # Math-Shepherd's format is known without one
    return str(kind)


def _as_language_model(place: str, checkpoint: str) -> None:
    _told(place, checkpoint, lambda: check_policy(checkpoint))
    _check_template(place, checkpoint)


def _check_template(place: str, checkpoint: str) -> None:
    """A model reads prompts as it was trained to: no format is made up for one that states none."""
    chat = _told(place, checkpoint, lambda: load_chat(checkpoint))
    if chat.tokenizer.chat_template is None and not chat.text_pair:
        raise ConfigError(
            f"{place} = {shown(checkpoint)}: its tokenizer has no chat template, and how it reads a"
            " prompt is not known; valid: a checkpoint folder with a chat_template.jinja"
        )


def _told(place: str, checkpoint: str, look: Callable[[], Any]) -> Any:
    """What ``look`` finds; its error as the config's."""
    try:
        return look()
    except (ValueError, OSError) as error:
        raise ConfigError(f"{place} = {shown(checkpoint)}: {error}") from error
