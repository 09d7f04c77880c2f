"""Truncations that a config's variants train on, and whether an SST variant limits TLT's pairs."""

from collections.abc import Mapping

from orchestrator.config.sections import Variant


def truncations_of(variants: Mapping[str, Variant]) -> list[str]:
    """Return the truncations that some variant trains on; SST, which takes all pairs, is first."""
    used = {v.truncation for v in variants.values() if v.takes_partial_pairs}
    return [name for name in ("sst", "tlt") if name in used]


def tlt_is_matched(variants: Mapping[str, Variant]) -> bool:
    """Whether every TLT variant has an SST variant as its `match`.

    Then TLT takes at most as many partial pairs as SST.
    """
    return all(
        v.match is not None and variants[v.match].truncation == "sst"
        for v in variants.values()
        if v.takes_partial_pairs and v.truncation == "tlt"
    )
