"""The checks of a file job's options that import nothing that computes, made before all others.

A wrong option answers at once. The job makes them again for callers that skip this module.
"""

from collections.abc import Callable, Mapping
from typing import Any

import typer
from rich.console import Console

from jobs.sweep.main import BAD_CONFIG
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.errors import ConfigError, shown
from orchestrator.config.output_paths import check_uri, is_file
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.rows import SUFFIXES, VALID
from orchestrator.decoding.checks import check_sampling, check_seed
from orchestrator.decoding.methods import method_of, not_by_vllm, parsed, unscored_methods

LINES = ".txt"  # one prompt a line


def first_of_decode(given: Mapping[str, Any]) -> None:
    """Checks the options of jobs/decode.py.

    Raises:
        ConfigError: one cannot be.
    """
    method = given["method"]
    search = method_of(method, parsed(given["fields"]))
    if given["engine"] == "vllm" and (reason := not_by_vllm(method)):
        raise ConfigError(f"--engine = 'vllm': {reason}; valid: transformers")
    check_sampling(_option, given["temperature"], given["top_p"])
    check_seed(_option, given["seed"])
    _check_file("--prompts", given["prompts"], (*SUFFIXES, LINES), f"{VALID}, or {LINES}")
    if given["reward"] is None and search.needs_scorer:
        raise ConfigError(
            f"--reward: missing; --method {method} asks for scores; valid: a reward model,"
            f" or --method {' or '.join(unscored_methods())}"
        )
    _check_checkpoints(given, "policy", "reward", "base")


def first_of_score(given: Mapping[str, Any]) -> None:
    """Checks the options of jobs/score.py.

    Raises:
        ConfigError: one cannot be.
    """
    _check_file("--input", given["input"], SUFFIXES, VALID)
    _check_checkpoints(given, "reward", "base")
    try:
        Prefixes.parse(given["prefixes"])
    except ValueError as error:
        raise ConfigError(f"--prefixes = {error}") from None
    check_seed(_option, given["seed"])


def first(check: Callable[[Mapping[str, Any]], None], given: Mapping[str, Any]) -> None:
    """Makes the checks of a job; ends it where one fails.

    Raises:
        typer.Exit: with the exit code of wrong options; the error is shown.
    """
    try:
        check(given)
    except ConfigError as error:
        console = Console(stderr=True)
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(BAD_CONFIG) from None


def _check_file(option: str, source: str, suffixes: tuple[str, ...], valid: str) -> None:
    if not source.endswith(suffixes):
        raise ConfigError(f"{option} = {shown(source)}: its format is not known; valid: {valid}")
    if "://" in source:
        check_uri(option, source)
    elif not is_file(source):
        raise ConfigError(f"{option} = {shown(source)}: no such file; valid: {valid}")


def _check_checkpoints(given: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if given[name] is not None:
            check_checkpoint(_option(name), given[name])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
