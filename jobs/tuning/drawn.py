"""The configs that a tuning draws, checked by all that imports nothing that computes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.sweep.main import quickly_checked
from orchestrator.config.checks import check_model
from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config
from orchestrator.tuning.request import Request
from orchestrator.tuning.space import Dimension, Scalar, as_overrides, draw_trials, parse_space

MOST = 10_000  # trials of a tuning


@dataclass(frozen=True)
class Drawn:
    """The values of all trials by field, and the config that they are set in."""

    base: Config
    space: list[Dimension]
    trials: list[dict[str, Scalar]]


def drawn_of(request: Request, config_file: Path | None, overrides: Sequence[str]) -> Drawn:
    """Draws the trials, and checks the config of each.

    Raises:
        ConfigError: the space, a drawn config, the model or the metric is not valid.
    """
    space = parse_space(request.space)
    base = quickly_checked(config_file, overrides, starts=True)
    check_model(base, request.model)
    _check_request(request, base)
    trials = draw_trials(space, request.trials, base.seed)
    for values in trials:
        config_with(values, request, config_file, overrides)
    return Drawn(base, space, trials)


def config_with(
    values: dict[str, Scalar], request: Request, config_file: Path | None, overrides: Sequence[str]
) -> Config:
    """The config of a trial.

    Raises:
        ConfigError: it is not valid; the message says what was drawn.
    """
    with told_of_drawn(values):
        given = [*overrides, *as_overrides(values)]
        config = quickly_checked(config_file, given, starts=False)
        check_model(config, request.model)
        return config


@contextmanager
def told_of_drawn(values: dict[str, Scalar]) -> Iterator[None]:
    """Adds to a config's error what was drawn."""
    try:
        yield
    except ConfigError as error:
        drawn = " ".join(as_overrides(values))
        raise ConfigError(f"--space: with {drawn} drawn: {error}") from error


def measures_of(config: Config, model: str) -> list[str]:
    """The metrics that a training of this model has."""
    if model == "policy" or not config.training.evaluation_pairs:
        return ["final_loss"]
    variant = config.variants.get(model)
    names = ["held_out_accuracy", "held_out_loss", "final_loss"]
    if variant is None or variant.trained_by.takes_partial_pairs():
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
        if not 1 <= getattr(request, name) <= MOST:
            raise ConfigError(f"--{name} {getattr(request, name)}: valid is 1 to {MOST:,}")


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
