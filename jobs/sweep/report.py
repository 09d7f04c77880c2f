"""The end of a job: a sweep's summary, rejects, report, figures, tables; a model's metrics."""

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from jobs.sweep.plan import Plan
from jobs.sweep.runner import Runner, read_evaluation
from jobs.sweep.runtime.workspace import Workspace
from orchestrator.data.rejects import write_rejects
from orchestrator.records import Reject
from orchestrator.report.figures import figures, save_figures
from orchestrator.report.page import render, write_page
from orchestrator.report.summary import SweepResults, summarize, write_summary
from orchestrator.report.terminal import print_summary
from orchestrator.tracking.mlflow_tracker import RunRef, Tracker


def report(
    plan: Plan, runner: Runner, tracker: Tracker, parent: RunRef, sweep_key: str, console: Console
) -> None:
    """Write and show the results; log them in the sweep's own MLflow run."""
    store, folder = plan.store, plan.store.local
    results = _results(plan, sweep_key)
    summary = summarize(results)
    summary["mlflow_command"] = tracker.ui_command()
    write_summary(summary, folder / "summary.json")
    write_rejects(folder / "rejects.parquet", results.rejects)
    drawn = figures(summary)
    write_page(render(summary, drawn, tracker.ui_command()), folder / "report.html")
    files = [folder / name for name in ("summary.json", "rejects.parquet", "report.html")]
    published = [store.publish(file.name, file) for file in files]
    if runner.redone or not tracker.is_finished(parent):
        for figure in save_figures(drawn, folder / "figures"):
            store.publish(f"figures/{figure.name}", figure)
        tracker.log(parent, artifacts=[*files, folder / "figures"])
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


def show_model(
    plan: Plan, model: str, workspace: Workspace, tracker: Tracker, parent: RunRef
) -> None:
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
