"""Control tokens, kept separate from text that spells them.

A chat template writes control tokens (`<|im_end|>`) into one string with the contents of messages.
A content that spells such a token must remain ordinary text: it must not end a turn. Contents are
escaped before the template renders them, and unescaped afterwards.
"""

import re
from collections.abc import Collection
from functools import cached_property
from itertools import takewhile

from tokenizers import AddedToken, Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

# Unicode noncharacters: they have no meaning in text that programs exchange.
_ESCAPE, _CONTROL = "\ufdd0", "\ufdd1"
NEVER_IN_CONTENT = _CONTROL  # of escaped text
_REPLACEMENT = "\ufffd"
Ids = tuple[int, ...]


class ControlTokens:
    """The control tokens of a tokenizer: its added tokens that are special.

    Escaped text holds no control tokens. Rendered text holds only those of the template.

    Args:
        tokenizer: the Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._ids = {str(token): i for i, token in added.items() if token.special and str(token)}
        self._texts = {i: name for name, i in self._ids.items()}
        self._tokens = {str(token): token for token in added.values()}
        self._names = sorted(self._ids, key=lambda name: (-len(name), name))
        names = "|".join(map(re.escape, self._names)) or r"(?!)"
        self._spelled = re.compile(names)
        self._escaped_or_control = re.compile(rf"{_ESCAPE}(?P<index>\d+){_ESCAPE}|{names}")

    @property
    def ids(self) -> Collection[int]:
        """The token ids of the control tokens."""
        return self._texts.keys()

    def escape(self, content: str) -> str:
        """Escape a content, so that control tokens it spells differ from the template's."""
        content = content.replace(_ESCAPE, _REPLACEMENT).replace(_CONTROL, _REPLACEMENT)
        return self._spelled.sub(
            lambda match: f"{_ESCAPE}{self._names.index(match[0])}{_ESCAPE}", content
        )

    def unescape(self, text: str) -> str:
        """Invert ``escape``."""
        if _ESCAPE not in text:
            return text
        return re.sub(rf"{_ESCAPE}(\d+){_ESCAPE}", lambda match: self._names[int(match[1])], text)

    def encode(self, text: str) -> Ids:
        """Return token ids of escaped text: control tokens where not escaped, no BOS added."""
        if _ESCAPE not in text:
            return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return self.encode_with_ends(text)[0]

    def encode_with_ends(self, text: str) -> tuple[Ids, tuple[int, ...]]:
        """Return ``encode``, and for each token the character of the unescaped text at its end."""
        if _ESCAPE not in text:
            plain = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return tuple(plain["input_ids"]), tuple(end for _, end in plain["offset_mapping"])
        core, controls = self._ordinary

        def replacement(match: re.Match[str]) -> str:
            if match["index"] is not None:
                return self._names[int(match["index"])]
            return f"{_CONTROL}{match[0]}{_CONTROL}"

        text = self._escaped_or_control.sub(replacement, text)
        encoding = core.encode(text, add_special_tokens=False)
        ids: list[int] = []
        ends: list[int] = []
        marks = 0  # characters of the marks up to the token
        for token_id, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            is_control = token_id in controls
            marks += 2 * len(_CONTROL) * is_control
            parts = (controls[token_id],) if is_control else self._spelled_out(token_id)
            ids.extend(parts)
            ends.extend([end - marks] * len(parts))
        return tuple(ids), tuple(ends)

    def content_ids(self, content: str) -> Ids:
        """Return token ids of a content alone, not escaped: all of it is ordinary text."""
        if not self._spelled.search(content):
            return tuple(self._tokenizer(content, add_special_tokens=False)["input_ids"])
        core, _ = self._ordinary
        ids = core.encode(content, add_special_tokens=False).ids
        return tuple(part for i in ids for part in self._spelled_out(i))

    def content_encoding(self, content: str) -> Encoding | None:
        """Return ``content_ids`` with the words and characters of the tokens.

        None if the tokenizer does not provide them.
        """
        if not self._tokenizer.is_fast:
            return None
        encoding: Encoding
        if not self._spelled.search(content):
            encoding = self._tokenizer(content, add_special_tokens=False).encodings[0]
            return encoding
        encoding = self._ordinary[0].encode(content, add_special_tokens=False)
        return None if set(encoding.ids) & set(self._ids.values()) else encoding

    def _spelled_out(self, token_id: int) -> Ids:
        """Return the ids of a token as ordinary text.

        WordLevel and Unigram vocabularies hold control tokens as ordinary entries too; such a token
        is encoded in two parts: its first character and the following ones.
        """
        if token_id not in self._texts:
            return (token_id,)
        core, text = self._ordinary[0], self._texts[token_id]
        parts = (core.encode(part, add_special_tokens=False).ids for part in (text[:1], text[1:]))
        unknown = self._tokenizer.unk_token_id
        return tuple(i for ids in parts for i in ids if i not in self._texts or i == unknown)

    @cached_property
    def _ordinary(self) -> tuple[Tokenizer, dict[int, int]]:
        """A copy of the tokenizer with control tokens only between marks; a map to original ids.

        The map is from the copy's ids of control tokens to the original ones.

        Raises:
            ValueError: the tokenizer is not one of the `tokenizers` library.
        """
        if not self._tokenizer.is_fast:
            raise ValueError(
                f"{type(self._tokenizer).__name__} has no tokenizer.json: a text that contains one"
                " of its control tokens cannot be tokenized as ordinary text"
            )
        core = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        core.encode_special_tokens = True  # unmarked control tokens become ordinary text
        disguised = {name: f"{_CONTROL}{name}{_CONTROL}" for name in self._names}
        core.add_tokens(
            [
                AddedToken(
                    disguise,
                    lstrip=self._tokens[name].lstrip,
                    rstrip=self._tokens[name].rstrip,
                    normalized=False,
                    special=False,
                )
                for name, disguise in disguised.items()
            ]
        )
        ids = (core.token_to_id(disguise) or 0 for disguise in disguised.values())
        return core, dict(zip(ids, map(self._ids.__getitem__, disguised), strict=True))


def split(prompt: Ids, ids: Ids) -> tuple[Ids, Ids]:
    """Split ``ids`` after the longest prefix that it shares with ``prompt``."""
    pairs = zip(prompt, ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return ids[:same], ids[same:]
