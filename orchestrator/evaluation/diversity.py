"""Diversity of a response (appendix C.2): product over n = 2..4 of unique / total n-grams.

Knows nothing of prompts, of models or of how many responses there are: one response, one number.
"""

from collections.abc import Hashable, Sequence

NGRAM_SIZES = (2, 3, 4)  # appendix C.2


def diversity(response: str | Sequence[Hashable]) -> float:
    """Diversity of one response, in (0, 1]; 1 where no n-gram is repeated.

    A text is split at white space; anything else is taken as a sequence of token ids. The paper
    does not say what 0 / 0 is: a response of fewer than n words has no n-gram, and that n is left
    out of the product. One of fewer than two words (an empty one too) therefore has diversity 1.
    """
    tokens = tuple(response.split() if isinstance(response, str) else response)
    product = 1.0
    for size in NGRAM_SIZES:
        ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
        if ngrams:
            product *= len(set(ngrams)) / len(ngrams)
    return product
