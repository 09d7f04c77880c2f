"""The end of a job: a sweep's summary, rejects, report, figures, tables; a model's metrics."""

import json
from pathlib import Path

from jinja2.exceptions import UndefinedError
from rich.console import Console
from rich.table import Table

from jobs.sweep.plan import Plan
from jobs.sweep.runner import Runner, read_evaluation
from jobs.sweep.steps.summary import summarize, write_all_rejects, write_summary
from orchestrator.config.errors import ConfigError, reason_of
from orchestrator.report.figures import save_figures
from orchestrator.report.page import render, write_report
from orchestrator.report.tables import terminal
from orchestrator.tracking.mlflow_tracker import Tracker


def report(plan: Plan, runner: Runner, tracker: Tracker, parent: str, sweep_key: str) -> None:
    """Writes and shows the results; tracks them in the sweep's own run."""
    sweep = plan.sweep
    place = sweep.store.local
    summary = summarize(plan, read_evaluation(sweep.store, plan), sweep_key)
    summary["mlflow_command"] = tracker.ui_command()
    write_summary(summary, place / "summary.json")
    write_all_rejects(plan, place / "rejects.parquet")
    write_report(summary, place / "report.html", tracker.ui_command())
    files = [place / name for name in ("summary.json", "rejects.parquet", "report.html")]
    where = [sweep.store.publish(file.name, file) for file in files]
    if runner.redone or not tracker.is_finished(parent):
        figures = place / "figures"
        save_figures(summary, figures)
        for figure in figures.iterdir():
            sweep.store.publish(f"figures/{figure.name}", figure)
        tracker.log(parent, artifacts=[*files, figures])
        runner.track_cells(summary["cells"])
    terminal(summary, sweep.console)
    sweep.console.print(f"summary: {where[0]}", highlight=False, soft_wrap=True)
    sweep.console.print(f"report:  {where[2]}", highlight=False, soft_wrap=True)
    sweep.console.print(f"MLflow:  {tracker.ui_command()}", highlight=False, soft_wrap=True)


def render_again(folder: Path, console: Console) -> None:
    """Writes report.html and the figures of a finished sweep anew, and shows the tables.

    Raises:
        ConfigError: the folder has no summary that can be read.
    """
    file = folder / "summary.json"
    try:
        summary = json.loads(file.read_text("utf-8"))
        render(summary, "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UndefinedError) as error:
        raise ConfigError(
            f"{file}: cannot be read as a sweep's summary ({reason_of(error)});"
            " valid: the output folder of a finished sweep"
        ) from error
    try:
        save_figures(summary, folder / "figures")
        write_report(summary, folder / "report.html", summary.get("mlflow_command", ""))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {reason_of(error)}") from error
    terminal(summary, console)
    console.print(f"report:  {folder / 'report.html'}", highlight=False, soft_wrap=True)


def show_model(plan: Plan, model: str, tracker: Tracker, parent: str) -> None:
    """Shows a trained model's final metrics and its folder; the metrics go to the parent run."""
    sweep = plan.sweep
    stage = plan.steps[-1].stage  # the others are there for it
    metrics = sweep.store.marker(stage)["figures"]["metrics"]
    tracker.log(parent, metrics=metrics, tags={"kind": "training", "model": model})
    table = Table("metric", "value", title=model, title_justify="left")
    for name, value in metrics.items():
        table.add_row(name, f"{value:,.6g}")
    sweep.console.print(table)
    for name, place in (
        ("checkpoint:", sweep.checkpoint(model)), ("MLflow:    ", tracker.ui_command()),
    ):  # fmt: skip
        sweep.console.print(f"{name} {place}", highlight=False, markup=False, soft_wrap=True)
