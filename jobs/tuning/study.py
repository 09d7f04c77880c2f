"""The plan of a tuning: the checked configs of its trials, and the stages that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.sweep.main import check_checkpoint_kinds, make_plan
from jobs.sweep.plan import Plan
from jobs.sweep.runtime.workspace import Step
from jobs.sweep.tracking import parent_run_key
from jobs.tuning.trial_configs import DrawnTrials, config_with, draw, drawn_values_in_errors
from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage, Store
from orchestrator.tuning.options import TuningOptions
from orchestrator.tuning.space import Dimension, Scalar

STAGES_WITH_ACTORS = ("pairs", "partial_pairs", "implicit_pairs")  # stages that start actors


@dataclass(frozen=True)
class Trial:
    """One trial: its drawn values, and the plan that trains its model.

    Attributes:
        number: number of the trial, from 1.
        values: drawn values by field.
        plan: the plan of the trial's config.
    """

    number: int
    values: dict[str, Scalar]
    plan: Plan

    @property
    def stage(self) -> Stage:
        """The stage that trains the model, the last one of the plan."""
        return self.plan.steps[-1].stage


@dataclass(frozen=True)
class Study:
    """A tuning.

    Attributes:
        options: its options.
        base: config in which the values of the trials are set.
        trials: its trials.
    """

    options: TuningOptions
    base: Config
    trials: list[Trial]

    @property
    def store(self) -> Store:
        """Where the stages of all trials leave their outputs."""
        return self.trials[0].plan.store

    @property
    def key(self) -> str:
        """The key of the tuning: a hash of its trials and of how they are compared."""
        options = self.options
        compared = [options.model, options.metric, options.mode, options.scheduler]
        return parent_run_key(["tune", *compared, *(trial.stage.key for trial in self.trials)])

    @cached_property
    def shared(self) -> list[str]:
        """Names of the stages that are the same in all trials; they run once, before the trials."""
        keys = [
            {step.stage.name: step.stage.key for step in trial.plan.steps} for trial in self.trials
        ]
        return [n for n, key in keys[0].items() if all(other.get(n) == key for other in keys)]

    def steps_of(self, trial: Trial) -> list[Step]:
        """Return the steps of a trial that are not common to all trials."""
        return [step for step in trial.plan.steps if step.stage.name not in self.shared]

    @property
    def starts_actors(self) -> bool:
        """Whether a trial starts actors besides its training workers."""
        return any(
            step.stage.name in STAGES_WITH_ACTORS
            for trial in self.trials
            for step in self.steps_of(trial)
        )


def study_of(
    options: TuningOptions,
    config_file: Path | None,
    overrides: Sequence[str],
    drawn: DrawnTrials | None = None,
) -> tuple[Study, str]:
    """Plan and check the trials; return the study and a notice of the output folder.

    Args:
        options: options of the tuning.
        config_file: YAML file of the config; None is the embedded world's.
        overrides: overrides of the config.
        drawn: result of ``draw`` for the same arguments; None draws the trials.

    Raises:
        ConfigError: the space, a drawn config, the model or the metric is not valid.
    """
    drawn = drawn or draw(options, config_file, overrides)

    def plan_with(values: dict[str, Scalar]) -> tuple[Plan, str]:
        config = config_with(values, options, config_file, overrides)
        with drawn_values_in_errors(values):
            check_checkpoint_kinds(config)
            return make_plan(config, options.model)

    check_checkpoint_kinds(drawn.base)
    plans = [plan_with(values) for values in drawn.trials]
    for dimension in drawn.space:
        values = list(dict.fromkeys(trial[dimension.field] for trial in drawn.trials))
        two_plans = [plan_with({dimension.field: value})[0] for value in values[:2]]
        _check_effect(dimension, options.model, two_plans)
    trials = [
        Trial(number, values, plan)
        for number, (values, (plan, _)) in enumerate(zip(drawn.trials, plans, strict=True), 1)
    ]
    return Study(options, drawn.base, trials), plans[0][1]


def _check_effect(dimension: Dimension, model: str, plans: Sequence[Plan]) -> None:
    """Raise ConfigError if two different values of a field give the same training."""
    if len(plans) > 1 and len({plan.steps[-1].stage.key for plan in plans}) == 1:
        raise ConfigError(
            f"--space {dimension.field}: does not change the training of {model};"
            " valid: a field on which this training, or a stage that it reads, depends"
        )
