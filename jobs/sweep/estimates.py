"""Estimates of the stages' seconds on this machine, for the dry run only.

The rates were measured with the embedded models on a machine whose speed is REFERENCE. For another
model or machine they are multiplied by the ratio of the speeds.
"""

from dataclasses import dataclass

from jobs.sweep.precision import shape_of
from jobs.sweep.runtime.resources import threads_per_process
from jobs.sweep.stage_names import CellName, samples_per_prompt
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
REAL_PAIRS = 1_000  # assumed pairs per split of a file that is not read yet


@dataclass(frozen=True)
class Rates:
    """Slowdown of this machine with the run's policy, relative to the reference machine."""

    training: float
    reading: float
    step: float

    @classmethod
    def of(cls, config: Config) -> "Rates":
        """Measure this machine."""
        training = config.training
        precision = "float32" if training.precision == "auto" else training.precision  # if any
        speed = measure(
            shape_of(config, config.models.policy),
            precision,
            threads_per_process(config.cluster, training.workers),
        )
        return cls(
            speed.training / REFERENCE.training,
            speed.forward / REFERENCE.forward,
            speed.step / REFERENCE.step,
        )


def seconds_of(name: str, config: Config, rates: Rates) -> float:
    """Return the estimated seconds of a stage."""
    stage = name.partition("/")[0]
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
        return rates.step * PER_SAMPLE * samples_per_prompt(config) * config.data.test_prompts
    if stage == "cells":
        method = config.search.all_methods[CellName.of_stage(name).method]
        prompts = min(method.prompts or config.data.test_prompts, config.data.test_prompts)
        return rates.step * prompts * method.seconds(config.decoding.max_new_tokens / 2)
    return {"data": 3.0, "calibration": 1.0, "agreement": 4.2 * rates.reading}.get(stage, 15.0)


def pair_count(config: Config, split: str | None = None) -> int:
    """Return the number of preference pairs of a split, or of all."""
    counts = config.data.row_counts
    if counts is None:
        return REAL_PAIRS
    return counts[split] if split else sum(counts[name] for name in PAIR_SPLITS)
