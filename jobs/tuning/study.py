"""A tuning before anything starts: its trials' configs, all checked, and the stages they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console

from jobs.steps.main import checked, key_of, planned
from jobs.steps.plan import Plan
from jobs.steps.sweep import Step
from orchestrator.config.checks import check_model
from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage
from orchestrator.tuning.request import Request
from orchestrator.tuning.space import Dimension, Scalar, as_overrides, draw_trials, parse_space

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
    request: Request, config_file: Path | None, overrides: Sequence[str]
) -> tuple[Study, str]:
    """Draws and checks the trials; gives also the sentence on where the output goes.

    Raises:
        ConfigError: the space, a drawn config, the model or the metric is not valid.
    """
    space = parse_space(request.space)
    base = checked(config_file, overrides)
    check_model(base, request.model)
    _check_request(request, base)
    quiet = Console(quiet=True)

    def plan_with(values: dict[str, Scalar]) -> tuple[Plan, str]:
        try:
            config = checked(config_file, [*overrides, *as_overrides(values)])
            check_model(config, request.model)
            return planned(config, request.model, quiet)
        except ConfigError as error:
            drawn = " ".join(as_overrides(values))
            raise ConfigError(f"--space: with {drawn} drawn: {error}") from error

    drawn = draw_trials(space, request.trials, base.seed)
    plans = [plan_with(values) for values in drawn]
    for dimension in space:
        values = list(dict.fromkeys(trial[dimension.field] for trial in drawn))
        two = [plan_with({dimension.field: value})[0] for value in values[:2]]
        _check_effect(dimension, request.model, two)
    trials = [
        Trial(number, values, plan)
        for number, (values, (plan, _)) in enumerate(zip(drawn, plans, strict=True), 1)
    ]
    return Study(request, base, trials), plans[0][1]


def measures_of(config: Config, model: str) -> list[str]:
    """The metrics that a training of this model has."""
    if model == "policy" or not config.training.evaluation_pairs:
        return ["final_loss"]
    variant = config.variants.get(model)
    names = ["held_out_accuracy", "held_out_loss", "final_loss"]
    if variant is None or variant.objective == "bradley_terry":
        names += [f"held_out_AR_t{t}" for t in config.evaluation.agreement_grid]
    return names


def _check_request(request: Request, config: Config) -> None:
    valid = measures_of(config, request.model)
    if request.metric not in valid:
        raise ConfigError(
            f"--metric {request.metric}: a training of {request.model} has none;"
            f" valid: {', '.join(valid)}"
        )
    if request.scheduler == "asha" and "scheduler" in request.named:
        _check_measured_early(request, config)
    for name in ("trials", "concurrent"):
        if getattr(request, name) < 1:
            raise ConfigError(f"--{name} {getattr(request, name)}: valid is 1 or more")


def _check_measured_early(request: Request, config: Config) -> None:
    """Raises ConfigError where ASHA is asked for and no trial has a measure before its end."""
    why = None
    if request.metric == "final_loss":
        why = "final_loss is known at the end of a training alone"
    elif config.training.evaluation_steps is None:
        why = "training.evaluation_steps = null measures at the end of a training alone"
    if why is not None:
        raise ConfigError(
            f"--scheduler asha: it has no effect: {why}; valid: fifo, or without --scheduler"
        )


def _check_effect(dimension: Dimension, model: str, plans: Sequence[Plan]) -> None:
    """Raises ConfigError for a field that two different values of leave the training as it is."""
    if len(plans) > 1 and len({plan.steps[-1].stage.key for plan in plans}) == 1:
        raise ConfigError(
            f"--space {dimension.field}: does not change the training of {model};"
            " valid: a field that it, or a stage that it reads, depends on"
        )
