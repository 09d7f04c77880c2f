"""Compute diversity (appendix C.2): the product over n = 2..4 of unique / total n-grams."""

from collections.abc import Hashable, Sequence

from orchestrator.evaluation.metric import Metric, register
from orchestrator.records import Prompt, Response

NGRAM_SIZES = (2, 3, 4)  # appendix C.2


@register
class Diversity(Metric):
    """The share of n-grams that are not repeated, multiplied over n."""

    name = "diversity"
    label = "diversity"
    order = 70

    @classmethod
    def measure(cls, prompt: Prompt, text: str, response: Response) -> float:
        """Return the diversity of the response's words."""
        return diversity(text)


def diversity(response: str | Sequence[Hashable]) -> float:
    """Return the diversity of one response, in (0, 1]; 1 if no n-gram is repeated.

    A text is split at white space; other values are sequences of token ids. The paper does not
    define 0 / 0: a response of fewer than n words has no n-gram, and the product excludes that n.
    So a response of fewer than two words, or an empty one, has diversity 1.
    """
    tokens = tuple(response.split() if isinstance(response, str) else response)
    product = 1.0
    for size in NGRAM_SIZES:
        ngrams = [tokens[i : i + size] for i in range(len(tokens) - size + 1)]
        if ngrams:
            product *= len(set(ngrams)) / len(ngrams)
    return product
