"""The format of a process reward model in tokens: what is written after a step, and what is read.

A format that is not set is detected from the checkpoint's files (architecture, labels of the head).
If they do not show it, the checkpoint is refused.
"""

from dataclasses import replace
from functools import lru_cache

from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.conversations.chat_formats import plain_template
from orchestrator.conversations.control_tokens import Ids, split
from orchestrator.conversations.end_tokens import generation_ends
from orchestrator.conversations.step_turns import StepTurns
from orchestrator.conversations.tokenizer_files import load_tokenizer
from orchestrator.scorers.detect import HeadType, inspect_checkpoint
from orchestrator.scorers.formats import BLANK_LINE, PRESETS, StepFormat
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.steps import check_delimiter
from orchestrator.scorers.tagged import TagFormat

QWEN_TAG = "<extra_0>"  # the tag in the training data of Qwen2.5-Math-PRM
_WORD, _NUMBER = "x", "7"  # two steps that begin with different tokens


def step_format(spec: ScorerSpec) -> StepFormat:
    """Return the format of a process reward model: the spec's, else the one that its files show.

    ``step_delimiter`` and ``step_tag`` of the spec replace those of the format. If the format is
    detected and the model has a head, ``step_tag`` also sets the delimiter: to the tag if it is
    white space, else to a blank line.

    Raises:
        ValueError: the checkpoint has no step tags, or fields contradict each other.
    """
    head_type = inspect_checkpoint(spec.checkpoint).head_type
    fmt = spec.step_format or _format_of(spec, head_type)
    if spec.step_tag is not None:
        delimiter = fmt.delimiter
        if spec.step_format is None and head_type != "language model":
            delimiter = spec.step_tag if spec.step_tag.isspace() else BLANK_LINE
        fmt = replace(fmt, tag=spec.step_tag, delimiter=delimiter)
    if spec.step_delimiter is not None:
        fmt = replace(fmt, delimiter=spec.step_delimiter)
    return fmt


def step_chat(spec: ScorerSpec) -> Chat:
    """Return the tokenizer and the prompt format of a process reward model.

    Raises:
        ValueError: as for ``step_format`` and ``load_chat``.
    """
    return _chat(spec.checkpoint, step_format(spec), spec.fold_system)


def tag_format(spec: ScorerSpec, chat: Chat) -> TagFormat:
    """Return the token ids of step tag and delimiter, and where they are written into a response.

    Raises:
        ValueError: the tokenizer has no token for the tag or the answer, or does not keep the
            delimiter.
    """
    fmt = step_format(spec)
    turns = fmt.layout == "turns"
    tags = _turns(spec.checkpoint, chat, fmt) if turns else _tags(spec, chat, fmt)
    if fmt.delimiter is not None:
        check_delimiter(chat, fmt.delimiter)
    return tags


def _tags(spec: ScorerSpec, chat: Chat, fmt: StepFormat) -> TagFormat:
    tag_ids, delimiter_ids = _tag_ids(spec, chat, fmt), Ids()
    if fmt.delimiter is not None:
        delimiter_ids = ids_after_word(chat, fmt.delimiter)
    return TagFormat(tag_ids, fmt.delimiter, delimiter_ids, fmt.delimiter_behind_tag)


def verdict_ids(spec: ScorerSpec, chat: Chat) -> tuple[int, int | None]:
    """Return the tokens with which a language model says right and wrong.

    The second is None if only the first is read.

    Raises:
        ValueError: its tokenizer has no such tokens.
    """
    fmt = step_format(spec)
    assert fmt.right is not None
    texts = [fmt.right] if fmt.wrong is None else [fmt.right, fmt.wrong]
    ids = [_verdict_id(spec.checkpoint, chat, text, fmt) for text in texts]
    return ids[0], ids[1] if fmt.wrong is not None else None


def ids_after_word(chat: Chat, text: str) -> Ids:
    """Return the token ids of a text after a word; alone it could get a leading space."""
    word, both = chat.marker_ids(_WORD), chat.marker_ids(f"{_WORD}{text}")
    return both[len(word) :] if both[: len(word)] == word else chat.marker_ids(text)


def _format_of(spec: ScorerSpec, head_type: HeadType) -> StepFormat:
    """Return the format with which the public models of a head type were trained."""
    checkpoint = spec.checkpoint
    if head_type == "process head":
        return PRESETS["qwen2.5-math-prm"].format
    if head_type == "token classes":
        has_tag = QWEN_TAG in load_chat(checkpoint).tokenizer.get_vocab()
        return PRESETS["qwen2.5-math-prm" if has_tag else "trl-prm"].format
    if head_type == "language model":  # Math-Shepherd's, after a chat template if it has one
        return replace(PRESETS["math-shepherd"].format, prompt="template")
    if head_type == "step values":
        return PRESETS["skywork-o1-prm"].format
    what = inspect_checkpoint(checkpoint).description
    if head_type == "value head":
        raise ValueError(
            f"{checkpoint}: it is {what}; its files do not show how it reads steps; valid: set its"
            " preset (skywork-o1-prm) or its format"
        )
    raise ValueError(
        f"{checkpoint}: it has no step tags: it is {what}; valid: a process reward model"
    )


@lru_cache(maxsize=16)
def _chat(checkpoint: str, fmt: StepFormat, fold_system: bool) -> Chat:
    if fmt.prompt == "template" and fmt.layout == "tags":
        return load_chat(checkpoint, fold_system, gap=fmt.gap)
    tokenizer, ends = load_tokenizer(checkpoint), generation_ends(checkpoint)
    if fmt.layout == "tags":
        bos = tokenizer.bos_token_id
        return Chat(tokenizer, ends, plain_template(fmt.gap), () if bos is None else (bos,))
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{checkpoint}: its tokenizer has no chat template, and its format has layout turns;"
            " valid: a checkpoint folder with a chat_template.jinja"
        )
    template = StepTurns(
        tokenizer, tokenizer.chat_template, fmt.gap, fmt.question, fmt.answer, fold_system
    )
    return Chat(tokenizer, ends, template)


def _turns(checkpoint: str, chat: Chat, fmt: StepFormat) -> TagFormat:
    """Return the format in which a turn judges each step, and the next step follows the answer."""
    assert isinstance(chat.template, StepTurns)
    judged, answered = chat.template.between_steps()
    begin = chat.frame + _WORD
    before, judged_ids = chat.encoded(begin), chat.encoded(begin + judged)
    both = [chat.encoded(begin + judged + answered + step) for step in (_WORD, _NUMBER)]
    between, _ = split(*both)
    if judged_ids[: len(before)] != before or both[0][: len(judged_ids)] != judged_ids:
        raise ValueError(
            f"{checkpoint}: the text between two steps merges with a step or with the answer"
            f" {fmt.answer!r} when it is tokenized, so no token is left to read the reward at;"
            " valid: a chat template that puts a control token there, or layout: tags"
        )
    tag_ids, between_ids = judged_ids[len(before) :], between[len(judged_ids) :]
    return TagFormat(tag_ids, fmt.delimiter, between_ids=between_ids, trims=True)


def _tag_ids(spec: ScorerSpec, chat: Chat, fmt: StepFormat) -> Ids:
    """Return the tokens of a tag; the tag of a public model is a single one."""
    tag = fmt.tag
    if spec.step_tag is not None:
        ids = chat.marker_ids(tag)
        is_written = bool(ids) and chat.tokenizer.decode(ids) in (tag, f" {tag}")
    else:
        ids = ids_after_word(chat, tag) if fmt.right is not None else chat.marker_ids(tag)
        is_written = chat.tokenizer.decode(ids[-1:]) in (tag, tag.strip(" "), f" {tag}")
    if not is_written:
        shown = tag.strip(" ") if spec.step_tag is None else tag
        raise ValueError(
            f"{spec.checkpoint}: its tokenizer does not know the step tag {shown!r}; valid: set"
            " step_tag to the tag that the model was trained with"
        )
    return ids


def _verdict_id(checkpoint: str, chat: Chat, text: str, fmt: StepFormat) -> int:
    """Return the token of an answer: after the template's turn, or as a separate word."""
    if fmt.layout == "turns":
        assert isinstance(chat.template, StepTurns)
        judged, _ = chat.template.between_steps()
        begin = chat.frame + _WORD + judged
        ids = chat.encoded(begin + text)[len(chat.encoded(begin)) :]
        is_token = len(ids) == 1
    else:
        ids = chat.marker_ids(text)[-1:]
        is_token = bool(ids) and chat.text(ids).strip() == text
    if not is_token:
        raise ValueError(
            f"{checkpoint}: {text!r} is not a single token of its tokenizer; valid: right and"
            " wrong (format) as the single tokens with which the model answers"
        )
    return ids[0]
