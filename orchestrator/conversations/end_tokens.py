"""The tokens that end a response: those that a policy may draw, and the one that is scored."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from orchestrator.checkpoints.weights import read_config, read_generation_config
from orchestrator.conversations.control_tokens import Ids

ScoreAt = str | int


def end_ids(
    tokenizer: PreTrainedTokenizerBase, closing: Sequence[int], generation_ends: Ids
) -> Ids:
    """Return the tokens with which a policy may end its response.

    Args:
        tokenizer: its end-of-sequence token, if any, is one of them.
        closing: tokens that the template writes after a response; its first control token comes
            first.
        generation_ends: every id of ``eos_token_id`` in its generation config.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    first = [i for i in closing if i in special | set(tokenizer.all_special_ids)][:1]
    eos = tokenizer.eos_token_id
    return tuple(dict.fromkeys((*first, *generation_ends, *(() if eos is None else (eos,)))))


def generation_ends(checkpoint: str) -> Ids:
    """Return the ids with which transformers' ``generate`` ends a checkpoint's responses."""
    generation = read_generation_config(checkpoint) or read_config(checkpoint)
    ends = generation.get("eos_token_id")
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


def up_to_scored(closing: Ids, score_at: ScoreAt | None, tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return the closing up to the token at which a reward model scores.

    Raises:
        ValueError: it has no such token.
    """
    if score_at is None:
        return closing
    texts = [tokenizer.decode([i]) for i in closing]
    if isinstance(score_at, int):
        last = len(closing) + score_at
    else:
        last = next((i for i in reversed(range(len(texts))) if texts[i] == score_at), -1)
    if not 0 <= last < len(closing):
        raise ValueError(
            f"score_at = {score_at!r}: no such token after a response; valid: one of {texts}, or"
            f" an index from -1 to -{len(closing)}"
        )
    return closing[: last + 1]
