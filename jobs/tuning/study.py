"""A tuning before anything starts: its trials' configs, all checked, and the stages they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from jobs.sweep.main import key_of, look_into, planned
from jobs.sweep.plan import Plan
from jobs.sweep.sweep import Step
from jobs.tuning.drawn import Drawn, config_with, drawn_of, told_of_drawn
from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage
from orchestrator.tuning.request import Request
from orchestrator.tuning.space import Dimension, Scalar

SAMPLING = ("pairs", "partial_pairs", "implicit_pairs")  # stages that start actors of their own


@dataclass(frozen=True)
class Trial:
    """One drawn config, and the plan that trains its model."""

    number: int
    values: dict[str, Scalar]
    plan: Plan

    @property
    def stage(self) -> Stage:
        """The stage that trains the model; all others of the plan are there for it."""
        return self.plan.steps[-1].stage


@dataclass(frozen=True)
class Study:
    """The trials of a tuning; ``base`` is the config that their values are set in."""

    request: Request
    base: Config
    trials: list[Trial]

    @property
    def key(self) -> str:
        """A study is its trials and how they are compared."""
        request = self.request
        compared = [request.model, request.metric, request.mode, request.scheduler]
        return key_of(["tune", *compared, *(trial.stage.key for trial in self.trials)])

    @cached_property
    def shared(self) -> list[str]:
        """Names of the stages whose keys are the same in all trials: made once, before them."""
        keys = [
            {step.stage.name: step.stage.key for step in trial.plan.steps} for trial in self.trials
        ]
        return [n for n, key in keys[0].items() if all(other.get(n) == key for other in keys)]

    def own(self, trial: Trial) -> list[Step]:
        """The steps that a trial does by itself."""
        return [step for step in trial.plan.steps if step.stage.name not in self.shared]

    @property
    def samples(self) -> bool:
        """Whether a trial starts actors beside its training group."""
        return any(step.stage.name in SAMPLING for trial in self.trials for step in self.own(trial))


def study_of(
    request: Request,
    config_file: Path | None,
    overrides: Sequence[str],
    drawn: Drawn | None = None,
) -> tuple[Study, str]:
    """Checks the trials; gives also the sentence on where the output goes.

    ``drawn`` is what ``drawn_of`` gives of the same arguments, where it was asked before.

    Raises:
        ConfigError: the space, a drawn config, the model or the metric is not valid.
    """
    drawn = drawn or drawn_of(request, config_file, overrides)
    quiet = Console(quiet=True)

    def plan_with(values: dict[str, Scalar]) -> tuple[Plan, str]:
        config = config_with(values, request, config_file, overrides)
        with told_of_drawn(values):
            look_into(config)
            return planned(config, request.model, quiet)

    look_into(drawn.base)
    plans = [plan_with(values) for values in drawn.trials]
    for dimension in drawn.space:
        values = list(dict.fromkeys(trial[dimension.field] for trial in drawn.trials))
        two = [plan_with({dimension.field: value})[0] for value in values[:2]]
        _check_effect(dimension, request.model, two)
    trials = [
        Trial(number, values, plan)
        for number, (values, (plan, _)) in enumerate(zip(drawn.trials, plans, strict=True), 1)
    ]
    return Study(request, drawn.base, trials), plans[0][1]


def _check_effect(dimension: Dimension, model: str, plans: Sequence[Plan]) -> None:
    """Raises ConfigError for a field that two different values of leave the training as it is."""
    if len(plans) > 1 and len({plan.steps[-1].stage.key for plan in plans}) == 1:
        raise ConfigError(
            f"--space {dimension.field}: does not change the training of {model};"
            " valid: a field that it, or a stage that it reads, depends on"
        )
