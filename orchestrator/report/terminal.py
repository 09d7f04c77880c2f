"""Print the results of a sweep in the terminal: the premise, the tables and explanatory lines.

The tables are cells, comparisons, equal budgets, mean counts and mean agreement. A table that is
wider than the console is split into several with the same leading columns. Tables that fit are not
folded; entries of a table that cannot be split further are. No number is truncated.
"""

from dataclasses import replace

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from orchestrator.report.budget import budget_marks, equal_budget_table
from orchestrator.report.entries import Summary
from orchestrator.report.notation import interval, paired, printable
from orchestrator.report.reasons import counts_table, reasons
from orchestrator.report.result_tables import agreement_table, cells_table, comparison_tables
from orchestrator.report.table import Entry, Table

GAP = 2  # spaces between two columns
NAME_WIDTH = 24  # longer names are wrapped
BOLD = "bold: the highest value of a method, significant or not"
SIGNS = "the interval excludes zero, and p is at most 0.05"
SIGN_STYLE = {"+": "green", "-": "red", "": ""}


def print_summary(summary: Summary, console: Console) -> None:
    """Print the premise, the result tables and notes; no line is wider than ``console.width``."""
    console.print(Text(premise_line(summary)))
    console.print()
    tables = [
        cells_table(summary),
        *comparison_tables(summary).values(),
        equal_budget_table(summary),
        counts_table(summary),
        agreement_table(summary),
    ]
    for table in tables:
        if not table.rows:
            continue
        for part in split_to_width(table, console.width):
            console.print(_rich(part))
            console.print()
    if tables[0].rows:
        console.print(Text(f"{BOLD}; + or -: {SIGNS}."))
    for line in (*budget_marks(summary), *reasons(summary), *summary["notes"]):
        console.print(Text(printable(line)))


def premise_line(summary: Summary) -> str:
    """Return a sentence that states whether the reference RM ranks prefixes better than the ORM."""
    premise = summary["premise"]
    verdict, text = printable(premise["verdict"]), printable(premise["text"])
    line = f"Premise (SP-PRM paper, section 4.2): {verdict}. {text}"
    if premise["reference"] is not None and premise["orm"] is not None:
        line += f" Prefix accuracy: reference {interval(premise['reference'])},"
        line += f" ORM {interval(premise['orm'])}"
        line += f", difference {paired(premise['difference'])}." if premise["difference"] else "."
    return line


def split_to_width(table: Table, width: int) -> list[Table]:
    """Split a table into as few tables as possible that are not wider than ``width``.

    Each table has the leading columns and at least one number column, even if it is then too wide.
    """
    assignment = _assign_columns(table, width)
    # Balance the widths: the smallest width that needs no more tables.
    candidates = (_assign_columns(table, candidate_width) for candidate_width in range(1, width))
    assignment = next((c for c in candidates if len(c) == len(assignment)), assignment)
    lead = [i for i, column in enumerate(table.columns) if column.lead]
    tables = [table.take([*lead, *indices]) for indices in assignment]
    return tables[:1] + [replace(t, title=f"{table.title}, continued") for t in tables[1:]]


def _assign_columns(table: Table, width: int) -> list[list[int]]:
    """Assign the indices of number columns to tables of at most ``width`` characters."""
    lead = sum(_width(table, i) + GAP for i, column in enumerate(table.columns) if column.lead)
    assignment: list[list[int]] = [[]]
    remaining_width = width - lead + GAP  # no gap after the last column
    for index in (i for i, column in enumerate(table.columns) if not column.lead):
        needed = _width(table, index) + GAP
        if needed > remaining_width and assignment[-1]:
            assignment.append([])
            remaining_width = width - lead + GAP
        assignment[-1].append(index)
        remaining_width -= needed
    return assignment


def _width(table: Table, index: int) -> int:
    column = table.columns[index]
    longest = max(
        [len(word) for word in column.name.split()]
        + [cell_len(_plain(r[index])) for r in table.rows]
    )
    return min(longest, NAME_WIDTH) if column.lead else longest


def _plain(entry: Entry) -> str:
    return f"{entry.text} {entry.sign}" if entry.sign else entry.text


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False,
    )  # fmt: skip
    # Only some entries end with a sign, which would misalign right-justified numbers.
    signed = any(entry.sign for row in table.rows for entry in row)
    for index, column in enumerate(table.columns):
        drawn.add_column(
            Text(column.name),
            justify="left" if column.lead or signed else "right",
            overflow="fold",
            min_width=_width(table, index) if column.lead else None,
            max_width=_width(table, index),
        )
    for index, row in enumerate(table.rows):
        if index in table.groups:
            drawn.add_section()
        drawn.add_row(*(Text(_plain(entry), style=_style(entry)) for entry in row))
    return drawn


def _style(entry: Entry) -> str:
    return "bold" if entry.best else SIGN_STYLE[entry.sign]
