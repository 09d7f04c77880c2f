"""Tokenizers created in a run: word-level for the helpdesk task, byte-level BPE for real text."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, USER, AGENT, END = "<pad>", "<unk>", "<user>", "<agent>", "<end>"
SPECIAL = (PAD, UNKNOWN, USER, AGENT, END)
# Every turn is closed, the customer's too: a policy learns to summarize a turn at <end>, which is
# where a reward model reads its score.
_WORDS_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<agent> {{ message.content }} <end> "
    "{% else %}<user> {{ message.content }} <end> {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<agent>{% endif %}"
)
# Spaces are tokens of a byte-level tokenizer, so none surround the response.
_BYTES_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<agent>{% else %}<user>{% endif %}"
    "{{ message.content }}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<agent>{% endif %}"
)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word.

    Text is split at white space, and decoded tokens are joined by single spaces.
    """
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _with_template(tokenizer, _WORDS_TEMPLATE)


def byte_pair_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of ``vocabulary`` entries on ``texts``; no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_template(tokenizer, _BYTES_TEMPLATE)


def _with_template(tokenizer: Tokenizer, template: str) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, AGENT],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = template
    return wrapped
