"""A table of the report: its entries and groups, and the names and the order of its rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from orchestrator.evaluation.metric import METRICS
from orchestrator.report.entries import MethodEntry
from orchestrator.report.notation import NOTHING, printable
from orchestrator.search.method import methods_in_order

EntryT = TypeVar("EntryT", bound=MethodEntry)
INTERVAL = "[95 % interval]"


@dataclass(frozen=True)
class Entry:
    """One table cell: text, whether it is the best of its group, and the sign of a difference."""

    text: str
    best: bool = False
    sign: str = ""


@dataclass(frozen=True)
class Column:
    """A column; ``lead`` columns identify the row, the others have numbers."""

    name: str
    lead: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``groups`` are the indices of rows that begin a group."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    groups: frozenset[int] = frozenset()

    def take(self, indices: Sequence[int]) -> "Table":
        """Return the table with the columns of these indices."""
        return replace(
            self,
            columns=tuple(self.columns[i] for i in indices),
            rows=tuple(tuple(row[i] for i in indices) for row in self.rows),
        )

    def without_empty(self) -> "Table":
        """Return the table without number columns that are empty."""
        return self.take([
            i for i, column in enumerate(self.columns)
            if column.lead or any(row[i].text != NOTHING for row in self.rows)
        ])  # fmt: skip


def make_table(
    title: str, lead: Iterable[str], others: Iterable[str], rows: Iterable[Iterable[Entry]]
) -> Table:
    """Return a table whose rows are grouped by their first entry."""
    columns = *(Column(name, lead=True) for name in lead), *(Column(name) for name in others)
    body = tuple(tuple(row) for row in rows)
    groups = {i for i in range(1, len(body)) if body[i][0].text != body[i - 1][0].text}
    return Table(title, columns, body, frozenset(groups))


def name_of(scorer: object) -> str:
    """Return the name of a scorer or another item; a dash for None."""
    return NOTHING if scorer is None else printable(scorer)


def method_order(rows: Iterable[EntryT]) -> list[EntryT]:
    """Sort rows by method in the order of the registry, unknown methods last; the sort is stable.

    The label of a setting of a method, such as cbs-chunk6, begins with the name of the method.
    """
    listed = list(rows)
    labels = [row["method"] for row in listed]
    order = list(dict.fromkeys([*methods_in_order(), *labels]))

    def rank(row: EntryT) -> tuple[int, int]:
        name, label = row["method"].partition("-")[0], row["method"]
        return order.index(name if name in order else label), order.index(label)

    return sorted(listed, key=rank)


def label_of(metric: str) -> str:
    """Return the heading of a metric; its name if it is not registered."""
    return METRICS[metric].label if metric in METRICS else printable(metric)
