"""The names of a plan's stages, from the config alone.

The plan imports torch and Ray; with this module a wrong name of `--force` is reported before that.
`plan.py` decides which stages there are; a test compares both.
"""

from dataclasses import dataclass

from orchestrator.config.tree import Config


@dataclass(frozen=True)
class CellName:
    """A method's label and its scorer's name, None without a scorer."""

    method: str
    scorer: str | None

    @property
    def stage(self) -> str:
        """Name of the cell's stage."""
        return f"cells/{self.method}/{self.scorer or 'none'}"

    @classmethod
    def of_stage(cls, stage: str) -> "CellName":
        """Return the cell of a stage's name."""
        _, method, scorer = stage.split("/")
        return cls(method, None if scorer == "none" else scorer)


def cell_names(config: Config) -> list[CellName]:
    """Return the cells of a config: each method with each scorer, if it needs one."""
    return [
        CellName(label, scorer)
        for label, method in config.search.all_methods.items()
        for scorer in (config.scorers if method.needs_scorer else [None])
    ]


def samples_per_prompt(config: Config) -> int:
    """Return how many samples are drawn of each test prompt; 0: there is no stage ``samples``.

    It is the largest number that a method shares; if no method shares samples, two for each
    held-out pair of a task whose pairs are sampled.
    """
    most = max(method.shared_samples for method in config.search.all_methods.values())
    pairs = config.evaluation.pairs_per_prompt if config.data.samples_pairs else 0
    return most or 2 * pairs


def stage_names(config: Config, model: str | None = None) -> list[str]:
    """Return the names of all stages of the full plan, in order.

    Args:
        config: config of the run.
        model: the model that is trained; `reference` adds the stage of the reference even if no
            variant needs it, any other value changes nothing.
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
        *(["samples"] if samples_per_prompt(config) else []),
        *(["calibration"] if any(method.calibrates_entropy for method in methods) else []),
        *(cell.stage for cell in cell_names(config)),
        *(f"agreement/{scorer}" for scorer in scored),
        "evaluation",
    ]
