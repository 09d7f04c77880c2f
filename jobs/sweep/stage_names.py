"""The names of a plan's stages, without the plan, which imports all that computes.

So that a wrong name is told at once. `plan.py` decides; a test holds the one to the other.
"""

from orchestrator.config.tree import Config


def stage_names(config: Config, model: str | None = None) -> list[str]:
    """The stages of the plan of a whole config, in its order.

    Args:
        config: what is run.
        model: that alone is trained, where one is: `reference` is a stage then in any case.
    """
    models, variants = config.models, config.variants
    partial = any(v.takes_partial_pairs for v in variants.values())
    has_reference = models.reference is not None or partial or model == "reference"
    implicit = any(v.is_trained_from_policy for v in variants.values())
    ordered = sorted(variants, key=lambda name: variants[name].match is not None)
    methods = config.search.all_methods.values()
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
        *(["calibration"] if any(method.calibrates_entropy for method in methods) else []),
        *(f"cells/{method}/{scorer}" for method, scorer in _cells(config)),
        *(f"agreement/{scorer}" for scorer in scored),
        "evaluation",
    ]


def _cells(config: Config) -> list[tuple[str, str]]:
    """Methods and scorers; of a method without a scorer, "none"."""
    return [
        (name, scorer)
        for name, method in config.search.all_methods.items()
        for scorer in (config.scorers if method.needs_scorer else ["none"])
    ]
