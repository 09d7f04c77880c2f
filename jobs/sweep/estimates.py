"""What stages may cost, in seconds on this machine, for the dry run; nothing else reads it.

Rates were measured once with the embedded models, on a machine whose speed is REFERENCE; another
model or machine takes as many times longer as its speed says.
"""

from dataclasses import dataclass

from jobs.sweep.precision import shape_of
from jobs.sweep.sweep import Step, Sweep
from orchestrator.config.tree import Config
from orchestrator.tasks.task import PAIR_SPLITS
from orchestrator.training.speed import Speed, measure

REFERENCE = Speed(training=0.028, forward=0.011, step=0.0037)
PER_TRAINED_PAIR = 0.0107
PER_DEMONSTRATION = 0.0044
PER_SAMPLE = 0.0018
PER_SCORED_RESPONSE = 0.0007
GROUP_START = 30.0
PIPELINE_START = 25.0
REAL_PAIRS = 1_000  # of a split of a file that is not read yet


@dataclass(frozen=True)
class Rates:
    """How many times longer this machine takes with the run's policy than the reference did."""

    training: float
    reading: float
    step: float

    @classmethod
    def of(cls, sweep: Sweep) -> "Rates":
        """Measures this machine."""
        training = sweep.config.training
        precision = "float32" if training.precision == "auto" else training.precision  # if any
        found = measure(
            shape_of(sweep.config, sweep.config.models.policy),
            precision,
            sweep.threads(training.workers),
        )
        return cls(
            found.training / REFERENCE.training,
            found.forward / REFERENCE.forward,
            found.step / REFERENCE.step,
        )


def seconds_of(step: Step, config: Config, rates: Rates) -> float:
    """What a stage may take."""
    stage = step.stage.name.partition("/")[0]
    pairs = pair_count(config)
    training = config.training
    if stage == "policy":
        rows = (training.policy.max_steps or 350) * training.policy.batch_size
        return GROUP_START + rates.training * PER_DEMONSTRATION * rows
    if stage in ("orm", "reference"):
        return rates.training * PER_TRAINED_PAIR * pair_count(config, stage)
    if stage == "variants":
        return rates.training * PER_TRAINED_PAIR * pair_count(config, "prm")
    if stage == "pairs":
        return rates.step * PER_SAMPLE * 2 * pairs
    if stage == "partial_pairs":
        scored = 2 * pair_count(config, "prm")
        return PIPELINE_START + rates.reading * PER_SCORED_RESPONSE * scored
    if stage == "implicit_pairs":
        scored = pair_count(config, "orm") + pair_count(config, "prm")
        return rates.reading * 2 * PER_SCORED_RESPONSE * scored
    if stage == "samples":
        return rates.step * PER_SAMPLE * int(step.options["n"]) * config.data.test_prompts
    if stage == "cells":
        prompts = min(step.options["prompts"] or config.data.test_prompts, config.data.test_prompts)
        method = config.search.all_methods[step.options["method"]]
        return rates.step * prompts * method.seconds(config.decoding.max_new_tokens / 2)
    return {"data": 3.0, "calibration": 1.0, "agreement": 4.2 * rates.reading}.get(stage, 15.0)


def pair_count(config: Config, split: str | None = None) -> int:
    """Preference pairs of a split, or of all."""
    counts = config.data.row_counts
    if counts is None:
        return REAL_PAIRS
    return counts[split] if split else sum(counts[name] for name in PAIR_SPLITS)
