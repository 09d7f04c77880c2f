"""Checks of a policy and of a scorer before anything starts, by their files.

No weights are read: config, tokenizer and the headers of the weight files show whether a checkpoint
can be loaded and whether it reads its texts.
"""

from collections.abc import Callable, Collection, Sequence

from orchestrator.checkpoints.adapters import adapter_of
from orchestrator.checkpoints.checkpoint import check_policy_weights
from orchestrator.checkpoints.files import read_json
from orchestrator.checkpoints.loading import check_quantizer
from orchestrator.checkpoints.model_configs import model_config
from orchestrator.choices import Engine
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.control_tokens import Ids
from orchestrator.conversations.tokenizer_files import template_file
from orchestrator.records import Message
from orchestrator.scorers.detect import inspect_checkpoint, scorer_kind
from orchestrator.scorers.kind import ScorerKind
from orchestrator.scorers.spec import ScorerSpec

# Special tokens that are written into texts or around them. Other special tokens (the image tokens
# of a model that reads text) occur only if a template writes them.
_WRITTEN = ("bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "pad_token_id",
            "cls_token_id")  # fmt: skip
_SHORT, _LONG = "x", "x x x x"  # two prompts that differ in tokens for any tokenizer
ToIds = Callable[[Sequence[Message]], Ids]


def check_policy(checkpoint: str, engine: Engine = "transformers") -> None:
    """Check that a checkpoint is a causal language model that ``engine`` loads and prompts.

    Raises:
        ValueError: it is another kind of model, its weights are not those of its config, a file is
            damaged, its tokenizer has ids that its embedding does not have, or its chat template
            leaves the prompt out.
    """
    info = inspect_checkpoint(checkpoint)
    without_head = info.head_type == "something else" and adapter_of(checkpoint) is None
    if info.head_type != "language model" and not without_head:
        raise ValueError(f"{checkpoint}: it is {info.description}; valid: a causal language model")
    check_policy_weights(checkpoint)
    if engine == "transformers":
        check_quantizer(checkpoint)
    read_json(checkpoint, "generation_config.json")
    chat = load_chat(checkpoint)
    check_conversations(checkpoint, chat, chat.prompt_ids)


def check_scorer(spec: ScorerSpec) -> ScorerKind:
    """Return the kind of a scorer after checking that it can be loaded and reads its texts.

    Raises:
        ValueError: as of ``scorer_kind``, or the kind's own check of the files fails.
    """
    kind = scorer_kind(spec)
    if spec.engine == "transformers":
        check_quantizer(spec.checkpoint)
    kind.check(spec)
    return kind


def check_conversations(
    checkpoint: str, chat: Chat, prompt_ids: ToIds, written: Collection[int] = ()
) -> None:
    """Check that a prompt's content reaches the model, and that all ids are in its embedding.

    Args:
        checkpoint: folder or hub name.
        chat: its tokenizer and template.
        prompt_ids: how it reads a prompt.
        written: further ids that are written into texts, as those of step tags.

    Raises:
        ValueError: one of them is not so.
    """
    if prompt_ids(_user(_SHORT)) == prompt_ids(_user(_LONG)):
        raise ValueError(
            f"{checkpoint}: the chat template ({template_file(checkpoint)}) does not render the"
            " prompt's content, so all prompts would be the same; valid: a template that"
            " renders the content of each message"
        )
    _check_ids(checkpoint, chat, {*prompt_ids(_user(_SHORT)), *written})


def _check_ids(checkpoint: str, chat: Chat, written: set[int]) -> None:
    """Check that no id of a text, and none that is ``written`` around it, is past the embedding."""
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
