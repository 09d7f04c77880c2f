"""The console of a job: names and paths are printed as they are."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from support.report_summary import full_summary

from jobs.command_line.console import LOG_WIDTH, job_console, printed_exit
from jobs.sweep.report_again import render_again
from orchestrator.stages.progress import ProgressBar

NAME = "runs/[a]/[/b]:on:"


@pytest.mark.parametrize("stderr", [False, True])
def test_brackets_and_colons_are_printed_as_they_are(
    stderr: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    console = job_console(stderr)
    console.print(f"report: {NAME}", highlight=False, soft_wrap=True)
    table = Table("field", NAME, title=f"Trials of {NAME}")
    table.add_row("value", NAME)
    console.print(table)
    printed = capsys.readouterr()[stderr]
    assert printed.count(NAME) == 4 and console.width == LOG_WIDTH


def test_an_error_names_the_path_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    printed_exit(ValueError(f"{NAME}: no such file"))
    assert capsys.readouterr().err == f"error: {NAME}: no such file\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_progress_names_the_stage_as_it_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orchestrator.stages.progress.SECONDS_BETWEEN_LINES", 0)
    console = job_console()
    if terminal:
        console = Console(force_terminal=True, width=200, markup=False, emoji=False)
    with ProgressBar(console, f"[7/31] variants/{NAME}", 10, "steps") as progress:
        progress.update(5, note=f"loss {NAME}")
    assert capsys.readouterr().out.count(NAME) >= 2


def test_a_report_in_a_folder_with_brackets_is_rendered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.sweep.report_again.figures", lambda _: {})  # takes seconds
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(full_summary()))
    render_again(folder, job_console())
    assert f"report:  {folder / 'report.html'}\n" in capsys.readouterr().out
