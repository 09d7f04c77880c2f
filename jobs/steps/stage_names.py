"""The names of a plan's stages, without the plan, which imports all that computes.

So that a wrong name is told at once. `plan.py` decides; a test holds the one to the other.
"""

from orchestrator.config.tree import Config
from orchestrator.report.rows import METHODS

UNSCORED = ("base", "greedy", "vote")


def stage_names(config: Config, model: str | None = None) -> list[str]:
    """The stages of the plan of a whole config, in its order.

    Args:
        config: what is run.
        model: that alone is trained, where one is: `reference` is a stage then in any case.
    """
    models, variants = config.models, config.variants
    partial = any(v.takes_partial_pairs for v in variants.values())
    has_reference = models.reference is not None or partial or model == "reference"
    implicit = any(v.is_trained and v.objective != "bradley_terry" for v in variants.values())
    ordered = sorted(variants, key=lambda name: variants[name].match is not None)
    cards = config.search.cards
    scored = dict.fromkeys(["orm", *config.scorers, *variants])
    scored |= {"reference": None} if has_reference else {}
    return [
        "data",
        *(["policy"] if models.policy is None else []),
        "pairs",
        *(["orm"] if models.orm is None else []),
        *(["reference"] if has_reference and models.reference is None else []),
        *(["partial_pairs"] if partial else []),
        *(["implicit_pairs"] if implicit else []),
        *(f"variants/{name}" for name in ordered if variants[name].is_trained),
        "samples",
        *(["calibration"] if cards is not None and cards.entropy_threshold is None else []),
        *(f"cells/{method}/{scorer}" for method, scorer in _cells(config)),
        *(f"agreement/{scorer}" for scorer in scored),
        "evaluation",
    ]


def _cells(config: Config) -> list[tuple[str, str]]:
    """Methods and scorers; of a method without a scorer, "none"."""
    run = [m for m in METHODS if m in UNSCORED[:2] or getattr(config.search, m) is not None]
    return [(m, s) for m in run for s in (["none"] if m in UNSCORED else config.scorers)]
