"""The drawn configs of a tuning, with the checks that need no torch, Ray or transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.sweep.main import load_config_without_model_checks
from orchestrator.config.checks import check_model_name
from orchestrator.config.load import ConfigError
from orchestrator.config.tree import Config
from orchestrator.tuning.options import TuningOptions
from orchestrator.tuning.space import Dimension, Scalar, as_overrides, draw_trials, parse_space

MOST = 10_000  # trials of a tuning, or trials at the same time


@dataclass(frozen=True)
class DrawnTrials:
    """The drawn trials of a tuning.

    Attributes:
        base: config in which the values are set.
        space: dimensions of the search space.
        trials: values of each trial by field.
    """

    base: Config
    space: list[Dimension]
    trials: list[dict[str, Scalar]]


def draw(options: TuningOptions, config_file: Path | None, overrides: Sequence[str]) -> DrawnTrials:
    """Draw the trials, and check the config of each.

    Raises:
        ConfigError: the space, an option or a drawn config is not valid.
    """
    space = parse_space(options.space)
    base = load_config_without_model_checks(config_file, overrides, check_tracking=True)
    check_model_name(base, options.model)
    _check_request(options, base)
    trials = draw_trials(space, options.trials, base.seed)
    for values in trials:
        config_with(values, options, config_file, overrides)
    return DrawnTrials(base, space, trials)


def config_with(
    values: dict[str, Scalar],
    options: TuningOptions,
    config_file: Path | None,
    overrides: Sequence[str],
) -> Config:
    """Return the config of a trial.

    Raises:
        ConfigError: the config is not valid; the message names the drawn values.
    """
    with drawn_values_in_errors(values):
        all_overrides = [*overrides, *as_overrides(values)]
        config = load_config_without_model_checks(config_file, all_overrides, check_tracking=False)
        check_model_name(config, options.model)
        return config


@contextmanager
def drawn_values_in_errors(values: dict[str, Scalar]) -> Iterator[None]:
    """Add the drawn values to the message of a ConfigError."""
    try:
        yield
    except ConfigError as error:
        drawn = " ".join(as_overrides(values))
        raise ConfigError(f"--space: with the values {drawn}: {error}") from error


def measures_of(config: Config, model: str) -> list[str]:
    """Return the names of the metrics of a training of this model."""
    if model == "policy" or not config.training.evaluation_pairs:
        return ["final_loss"]
    variant = config.variants.get(model)
    names = ["held_out_accuracy", "held_out_loss", "final_loss"]
    if variant is None or variant.trained_by.takes_partial_pairs():
        names += [f"held_out_AR_t{t}" for t in config.evaluation.agreement_grid]
    return names


def _check_request(options: TuningOptions, config: Config) -> None:
    valid = measures_of(config, options.model)
    if options.metric not in valid:
        raise ConfigError(
            f"--metric {options.metric}: a training of {options.model} has no such metric;"
            f" valid: {', '.join(valid)}"
        )
    if options.scheduler == "asha" and "scheduler" in options.set_by_user:
        _check_measured_early(options, config)
    for name in ("trials", "concurrent"):
        if not 1 <= getattr(options, name) <= MOST:
            raise ConfigError(f"--{name} = {getattr(options, name)}: valid: 1 to {MOST:,}")


def _check_measured_early(options: TuningOptions, config: Config) -> None:
    """Raise ConfigError if ASHA is requested, but trials are measured only at their end."""
    reason = None
    if options.metric == "final_loss":
        reason = "final_loss is computed only at the end of a training"
    elif config.training.evaluation_steps is None:
        reason = "training.evaluation_steps = null measures only at the end of a training"
    if reason is not None:
        raise ConfigError(
            f"--scheduler asha: it has no effect: {reason}; valid: fifo, or without --scheduler"
        )
