"""Checks of a policy and of a scorer before anything starts: all that their files tell.

No weight is read: config, tokenizer and the headers of the weights' files are enough to say whether
a checkpoint can be loaded, and whether its texts reach it.
"""

from collections.abc import Callable, Sequence

from transformers import AutoModel, AutoModelForSequenceClassification

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.checkpoint import check_policy_weights, check_reward_weights
from orchestrator.checkpoints.files import read_json
from orchestrator.checkpoints.loading import check_quantizer, check_weights
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.choices import Engine, ScorerKind
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.tokenizer_files import template_file
from orchestrator.records import Message
from orchestrator.scorers.detect import kind_of, nature_of
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.step_formats import step_format, tag_format, verdict_ids
from orchestrator.scorers.step_heads import check_step_layers

# Special tokens that are written into texts or around them. What else is special (the image tokens
# of a model that reads text alone) comes only where a template writes it.
_WRITTEN = ("bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "pad_token_id",
            "cls_token_id")  # fmt: skip
_SHORT, _LONG = "x", "x x x x"  # two prompts, of different tokens in any tokenizer


def check_policy(checkpoint: str, engine: Engine = "transformers") -> None:
    """Checks that a checkpoint is a causal language model that ``engine`` loads and prompts.

    Raises:
        ValueError: it is another kind of model, its weights are not those of its config, a file is
            damaged, its tokenizer has ids that its embedding has not, or its chat template leaves
            the prompt out.
    """
    nature = nature_of(checkpoint)
    headless = nature.form == "something else" and adapter_of(checkpoint) is None
    if nature.form != "language model" and not headless:
        raise ValueError(f"{checkpoint}: it is {nature.what}; valid: a causal language model")
    check_policy_weights(checkpoint)
    if engine == "transformers":
        check_quantizer(checkpoint)
    read_json(checkpoint, "generation_config.json")
    chat = load_chat(checkpoint)
    _check_prompt(checkpoint, chat.prompt_ids)
    _check_ids(checkpoint, chat, chat.prompt_ids(_user(_SHORT)))


def check_scorer(spec: ScorerSpec) -> ScorerKind:
    """The kind of a scorer, checked to be one that can be loaded and asked.

    Raises:
        ValueError: as of ``kind_of`` and of ``check_policy``; the models of a log ratio have
            different vocabularies, or a tokenizer does not know the step tag.
    """
    kind = kind_of(spec)
    if spec.score_at is not None and kind != "sequence":
        raise ValueError(
            f"{spec.checkpoint}: score_at = {spec.score_at!r}: a scorer of kind {kind!r} is read at"
            " a token of its own; valid: none, or a model of kind sequence"
        )
    if spec.engine == "transformers":
        check_quantizer(spec.checkpoint)
    if kind == "log_ratio":
        check_policy(spec.checkpoint)
        check_policy(str(spec.base))
        first, second = (load_chat(name) for name in (spec.checkpoint, str(spec.base)))
        if first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
            raise ValueError(
                f"{spec.checkpoint} and {spec.base} have different vocabularies: a log ratio is of"
                " the same tokens under both models"
            )
        return kind
    if kind == "sequence" and spec.score_token is not None:
        check_policy_weights(spec.checkpoint)
    elif kind == "sequence":
        check_reward_weights(spec.checkpoint, spec.score_label)
    elif kind == "encoder":
        labels = nature_of(spec.checkpoint).labels
        check_weights(AutoModelForSequenceClassification, spec.checkpoint, num_labels=labels)
    elif (fmt := step_format(spec)).right is not None:
        check_policy_weights(spec.checkpoint)
    else:
        check_weights(AutoModel, spec.checkpoint)
        check_step_layers(spec.checkpoint, fmt)
    chat, tag_ids = chat_of(spec), Ids()
    if kind == "step_tag":
        form = tag_format(spec, chat)
        tag_ids = form.tag_ids + form.between_ids
        if step_format(spec).right is not None:
            verdict_ids(spec, chat)
    _check_prompt(spec.checkpoint, chat.reward_prompt_ids)
    _check_ids(spec.checkpoint, chat, chat.reward_prompt_ids(_user(_SHORT)) + tag_ids)
    return kind


def _check_prompt(checkpoint: str, prompt_ids: Callable[[Sequence[Message]], Ids]) -> None:
    """Checks that the prompt's content reaches the model."""
    if prompt_ids(_user(_SHORT)) == prompt_ids(_user(_LONG)):
        raise ValueError(
            f"{checkpoint}: the chat template ({template_file(checkpoint)}) does not write the"
            " prompt's content, so that every prompt would be read alike; valid: a template that"
            " writes the content of each message"
        )


def _check_ids(checkpoint: str, chat: Chat, written: Ids) -> None:
    """Checks that no id of a text, nor one that is ``written`` around it, is past the embedding."""
    rows = getattr(model_config(checkpoint).get_text_config(), "vocab_size", None)
    tokenizer = chat.tokenizer
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
    reached = {i for i in tokenizer.get_vocab().values() if i not in special}
    reached |= {*written, *chat.closing_ids, *chat.end_ids}
    named = (getattr(tokenizer, name, None) for name in _WRITTEN)
    largest = max(reached | {i for i in named if i is not None})
    if rows is not None and largest >= rows:
        raise ValueError(
            f"{checkpoint}: its tokenizer gives ids up to {largest}"
            f" ({tokenizer.convert_ids_to_tokens(largest)!r}), and its embedding has {rows} rows,"
            f" for ids 0 to {rows - 1}; valid: the tokenizer that the model was trained with"
        )


def _user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]
