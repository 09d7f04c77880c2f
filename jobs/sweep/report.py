"""The end of a job: a sweep's summary, rejects, report, figures, tables; a model's metrics."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from jinja2.exceptions import UndefinedError
from rich.console import Console
from rich.table import Table

from jobs.sweep.plan import Plan
from jobs.sweep.runner import Runner, read_evaluation
from jobs.sweep.runtime.workspace import Workspace
from orchestrator.config.errors import ConfigError, reason_of
from orchestrator.data.rejects import write_rejects
from orchestrator.records import Reject
from orchestrator.report.figures import save_figures
from orchestrator.report.page import render, write_report
from orchestrator.report.summary import SweepResults, summarize, write_summary
from orchestrator.report.terminal import print_summary
from orchestrator.tracking.mlflow_tracker import Tracker


def report(
    plan: Plan, runner: Runner, tracker: Tracker, parent: str, sweep_key: str, console: Console
) -> None:
    """Write and show the results; log them in the sweep's own MLflow run."""
    store, folder = plan.store, plan.store.local
    results = _results(plan, sweep_key)
    summary = summarize(results)
    summary["mlflow_command"] = tracker.ui_command()
    write_summary(summary, folder / "summary.json")
    write_rejects(folder / "rejects.parquet", results.rejects)
    write_report(summary, folder / "report.html", tracker.ui_command())
    files = [folder / name for name in ("summary.json", "rejects.parquet", "report.html")]
    published = [store.publish(file.name, file) for file in files]
    if runner.redone or not tracker.is_finished(parent):
        figures = folder / "figures"
        save_figures(summary, figures)
        for figure in figures.iterdir():
            store.publish(f"figures/{figure.name}", figure)
        tracker.log(parent, artifacts=[*files, figures])
        runner.track_cells(summary["cells"])
    print_summary(summary, console)
    console.print(f"summary: {published[0]}", highlight=False, soft_wrap=True)
    console.print(f"report:  {published[2]}", highlight=False, soft_wrap=True)
    console.print(f"MLflow:  {tracker.ui_command()}", highlight=False, soft_wrap=True)


def _results(plan: Plan, sweep_key: str) -> SweepResults:
    """Collect the results of the plan's stages."""
    store, rejects = plan.store, []
    for step in plan.steps:
        file = store.folder(step.stage) / "rejects.parquet"
        if file.exists():
            rejects += [Reject(**row) for row in pq.read_table(file).to_pylist()]
    return SweepResults(
        config=plan.config,
        sweep_key=sweep_key,
        output_dir=store.remote or str(store.local),
        markers=[store.marker(step.stage) for step in plan.steps],
        models=[name for name in plan.models if name != "policy"],
        evaluation=read_evaluation(plan),
        rejects=rejects,
    )


def render_again(folder: Path, console: Console) -> None:
    """Write report.html and the figures of a finished sweep again, and show the tables.

    Raises:
        ConfigError: the folder has no summary that can be read, or the report or the figures cannot
            be written.
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
    print_summary(summary, console)
    console.print(f"report:  {folder / 'report.html'}", highlight=False, soft_wrap=True)


def show_model(plan: Plan, model: str, workspace: Workspace, tracker: Tracker, parent: str) -> None:
    """Show a trained model's final metrics and its folder; log the metrics in the parent run."""
    console = workspace.console
    metrics = plan.store.marker(plan.steps[-1].stage)["figures"]["metrics"]
    tracker.log(parent, metrics=metrics, tags={"kind": "training", "model": model})
    table = Table("metric", "value", title=model, title_justify="left")
    for name, value in metrics.items():
        table.add_row(name, f"{value:,.6g}")
    console.print(table)
    checkpoint = workspace.models.checkpoint(model)
    for line in (f"checkpoint: {checkpoint}", f"MLflow:     {tracker.ui_command()}"):
        console.print(line, highlight=False, soft_wrap=True)
