"""The report against a summary of every kind of entry: all numbers shown, none cut."""

import copy
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.console import Console
from support.report_summary import SCORERS, SEARCHES, Numbers, cell_entry, full_summary, rate_entry

from orchestrator.report.budget import budget_marks, equal_budget_table
from orchestrator.report.entries import Mean, MethodEntry, PairedEntry
from orchestrator.report.figures import figures, save_figures
from orchestrator.report.notation import (
    duration,
    facts,
    flops_unit,
    interval,
    number,
    paired,
    printable,
    sign,
)
from orchestrator.report.page import render, write_page
from orchestrator.report.quality import quality_figures
from orchestrator.report.result_tables import SETS, cells_table, comparison_tables
from orchestrator.report.style import colours
from orchestrator.report.table import method_order
from orchestrator.report.terminal import print_summary, split_to_width

HOSTILE = "<script>alert('x')</script> & \"[bold red]\" $\\frac{$ \x1b[31m \ud800"
UI_COMMAND = "mlflow ui --backend-store-uri 'sqlite:///a b/mlflow.db' & <x>"


@pytest.fixture(scope="module")
def full() -> Any:
    return full_summary()


@pytest.fixture(scope="module")
def drawn(full: Any) -> dict[str, Figure]:
    return figures(full)


@pytest.fixture(scope="module")
def page(full: Any, drawn: dict[str, Figure]) -> str:
    return render(full, drawn, UI_COMMAND)


@pytest.fixture(scope="module")
def empty(full: Any) -> Any:
    """The same with all that may be null or empty."""
    bare = copy.deepcopy(full)
    bare["premise"] |= dict.fromkeys(("reference", "orm", "difference"))
    bare["premise"]["verdict"] = "not tested"
    cell = cell_entry(Numbers(), "base", None)
    cell["metrics"] |= dict.fromkeys(("reward", "orm_reward", "rubric", "resolved", "win_tie"))
    model = full["models"][0] | {"pair_accuracy": None, "loss": []}
    rate = rate_entry(Numbers(), "AR_RM-SC", "orm", "closed")
    rate |= {pair_set: [None] * 3 for pair_set in SETS} | {
        f"{pair_set}_mean": None for pair_set in SETS
    }
    bare |= {"cells": [cell], "models": [model], "agreement": [rate], "weights": [], "notes": []}
    cell["counts"] = {}
    bare |= {
        "comparisons": [],
        "count_comparisons": [],
        "bon_curves": [],
        "equal_budget": [],
        "agreement_comparisons": [],
        "stages": [],
        "versions": {},
    }
    return bare | {"rejects": {"count": 0, "reasons": {}}}


class _Text(HTMLParser):
    """What a reader sees, the tags, and every attribute's value."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def _everything(summary: Any) -> list[str]:
    """The printed form of every interval and paired test anywhere in the summary."""
    entry: Any = summary
    if isinstance(summary, dict):
        if "p_value" in summary:
            return [paired(entry)]
        if {"value", "low", "high"} <= summary.keys():
            return [interval(entry)]
        return [text for value in summary.values() for text in _everything(value)]
    return [t for value in summary for t in _everything(value)] if isinstance(summary, list) else []


def points_of(line: Line2D) -> list[tuple[float, float]]:
    xs, ys = (np.asarray(values, float).tolist() for values in line.get_data())
    return list(zip(xs, ys, strict=True))


def _printed(summary: Any, width: int) -> str:
    printed = io.StringIO()
    print_summary(summary, Console(file=printed, width=width))
    return printed.getvalue()


def test_numbers_are_written_as_people_read_them() -> None:
    found: Mean = {"value": 0.606, "low": 0.55, "high": 0.664, "count": 9}
    assert interval(found) == "0.61 [0.55, 0.66]"
    assert number(-0.001) == "0.00"
    assert number(12345.6, 0) == "12,346"
    test: PairedEntry = {
        "difference": -0.0534,
        "low": -0.1,
        "high": -0.01,
        "p_value": 0.0001,
        "count": 9,
    }
    assert paired(test) == "-0.053 [-0.100, -0.010] p <0.001"
    assert [duration(s) for s in (0.421, 33.1, 812.3, 7500)] == [
        "0.42 s", "33 s", "13 min 32 s", "2 h 05 min",
    ]  # fmt: skip
    assert facts({"beams": 4, "beta": 0.12345, "cap": None}) == "beams 4, beta 0.1235, cap null"
    assert {interval(None), paired(None), number(None), facts({})} == {"\N{EN DASH}"}
    assert number(math.nan) == "nan"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.01, 0.2, "+"), (-0.2, -0.01, "-"), (-0.1, 0.1, ""), (0.0, 0.1, ""), (-0.1, 0.0, "")],
)
def test_a_sign_is_told_only_where_interval_and_p_value_agree(
    low: float, high: float, expected: str
) -> None:
    test: PairedEntry = {"difference": 0.0, "low": low, "high": high, "p_value": 0.05, "count": 9}
    assert sign(test) == expected
    assert sign({**test, "p_value": 0.0501}) == sign(None) == ""


def test_methods_stand_in_the_order_of_the_paper_and_unknown_ones_last() -> None:
    rows: list[MethodEntry] = [
        {"method": m} for m in ("mcts", "cards", "particles", "base", "mcts", "bon")
    ]
    order = [row["method"] for row in method_order(rows)]
    assert order == ["base", "bon", "cards", "mcts", "mcts", "particles"]


def test_bold_is_the_best_of_its_method_and_never_the_scorers_own_reward(
    full: Any,
) -> None:
    table = cells_table(full)
    columns = [column.name for column in table.columns]
    resolved = columns.index("resolved")
    rows = {tuple(entry.text for entry in row[:2]): row for row in table.rows}
    for method in SEARCHES:
        cells = [c for c in full["cells"] if c["method"] == method]
        best = max(cells, key=lambda c: c["metrics"]["resolved"]["value"])["scorer"]
        assert [s for s in SCORERS if rows[method, s][resolved].best] == [best]
    reward = next(i for i, name in enumerate(columns) if name.startswith("own reward"))
    assert not any(row[reward].best for row in table.rows)
    assert not any(entry.best for entry in rows["base", "\N{EN DASH}"])


def test_metrics_that_no_cell_has_get_no_column(full: Any, empty: Any) -> None:
    assert "accuracy" not in [column.name for column in cells_table(full).columns]
    names = [column.name for column in cells_table(empty).columns]
    assert names == [
        "method",
        "scorer",
        "n",
        "diversity",
        "tokens/prompt",
        "GFLOP/prompt",
        "s/prompt",
    ]


def test_cells_of_one_method_and_scorer_are_told_apart_by_their_parameters(
    full: Any,
) -> None:
    again = copy.deepcopy(full["cells"][4]) | {"parameters": {"n": 4}}
    table = cells_table(full | {"cells": [full["cells"][4], again]})
    column = [c.name for c in table.columns].index("parameters")
    assert {row[column].text for row in table.rows} == {"n 16", "n 4"}


def test_a_second_test_of_the_same_thing_is_a_row_of_its_own(full: Any) -> None:
    twice = [full["comparisons"][0], full["comparisons"][0] | {"test": Numbers().test(0.7)}]
    (table,) = comparison_tables(full | {"comparisons": twice}).values()
    assert [row[-1].text for row in table.rows] == [paired(t["test"]) for t in twice]


@pytest.mark.parametrize("width", [80, 100, 240])
def test_the_terminal_shows_every_number_whole_at_any_usual_width(full: Any, width: int) -> None:
    printed = _printed(full, width)
    assert max(len(line) for line in printed.splitlines()) <= width
    shown = {name: full[name] for name in ("cells", "comparisons")}
    assert not [text for text in _everything(full["equal_budget"]) if text not in printed]
    for cell in copy.deepcopy(full["cells"]):
        cell["metrics"].pop("length"), cell["metrics"].pop("finished")
        assert not [text for text in _everything(cell) if text not in printed]
        assert f" {cell['cost']['policy_tokens_computed'] + 1_000:,.0f} " in printed
    assert not [text for text in _everything(shown["comparisons"]) if text not in printed]
    means = [r[f"{o}_mean"] for r in full["agreement"] for o in SETS]
    assert not [text for text in _everything(means) if text not in printed]
    assert "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert printed.count(" 0.123") == len(full["cells"])
    premise = " ".join(printed.split())
    assert "Premise (SP-PRM paper, section 4.2): holds." in premise
    assert all(text in premise for text in _everything(full["premise"]))


def test_a_table_is_cut_only_where_it_does_not_fit(full: Any) -> None:
    table = cells_table(full)
    assert split_to_width(table, 10_000) == [table]
    parts = split_to_width(table, 100)
    assert [part.title.endswith("continued") for part in parts] == [False, True, True]
    lead = [column for column in table.columns if column.lead]
    assert all(list(part.columns[: len(lead)]) == lead for part in parts)
    numbers = [column for part in parts for column in part.columns if not column.lead]
    assert numbers == [column for column in table.columns if not column.lead]


def test_names_are_not_read_as_terminal_markup(full: Any) -> None:
    printed = _printed(full | {"notes": [HOSTILE]}, 200)
    assert "[bold red]" in printed
    assert "\x1b" not in printed
    assert printable("a\nb\x00") == "a b\N{REPLACEMENT CHARACTER}"


def test_the_page_holds_every_cell_and_every_interval(
    full: Any, page: str, drawn: dict[str, Figure]
) -> None:
    seen = _Text(page)
    text = "\n".join(seen.words)
    shown = {name: part for name, part in full.items() if name != "bon_curves"}  # a figure's only
    assert not [wanted for wanted in _everything(shown) if wanted not in text]
    for scorer in SCORERS:
        assert seen.words.count(scorer) >= len(SEARCHES)
    for wanted in (
        UI_COMMAND, "feedfacecafebeef", "steps 350, loss 0.5123", "0.5217", "1,920", "14,880",
        "empty response", "2.60.0", "temperature: 1.0", "13 min 32 s", full["notes"][0],
    ):  # fmt: skip
        assert wanted in text
    assert seen.tags.count("svg") == len(drawn) == 8


def test_the_page_loads_nothing_and_runs_nothing(page: str) -> None:
    seen = _Text(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert "http:" not in page and "https:" not in page and "@import" not in page
    targets = [v for name, v in seen.attributes if name in ("href", "src", "xlink:href")]
    targets += re.findall(r"url\(([^)]*)\)", page)
    assert targets and all(target.startswith("#") for target in targets)
    ids = [value for name, value in seen.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in targets} <= set(ids)


def test_hostile_names_are_shown_and_not_obeyed(full: Any, tmp_path: Path) -> None:
    hostile = copy.deepcopy(full)
    for key in ("name", "task", "output_dir", "config_yaml"):
        hostile[key] = HOSTILE
    hostile["notes"] = [HOSTILE]
    hostile["rejects"]["reasons"] = {HOSTILE: 3}
    hostile["stages"][0]["figures"] = {HOSTILE: HOSTILE}
    for part in ("cells", "comparisons", "agreement"):
        hostile[part][0]["scorer"] = HOSTILE
    hostile["comparisons"][0]["metric"] = f"../{HOSTILE}"
    hostile["models"][0]["name"] = hostile["weights"][0]["truncation"] = HOSTILE
    drawn = figures(hostile)
    write_page(render(hostile, drawn, UI_COMMAND), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    seen = _Text(page)
    assert "script" not in seen.tags
    assert sum("<script>alert('x')</script>" in words for words in seen.words) >= 10
    assert seen.tags.count("svg") == 9
    paths = save_figures(drawn, tmp_path / "figures")
    assert all(path.parent == tmp_path / "figures" and path.is_file() for path in paths)


def test_a_summary_of_nulls_still_gives_a_page_and_tables(empty: Any, tmp_path: Path) -> None:
    write_page(render(empty, figures(empty), UI_COMMAND), tmp_path / "report.html")
    text = " ".join(_Text((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    assert "Premise (SP-PRM paper, section 4.2): not tested." in text
    assert "None" not in text and "nan" not in text.split()
    assert "Nothing was compared in this run." in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    printed = _printed(empty, 100)
    assert "not tested" in printed and "None" not in printed
    nothing: dict[str, Any] = {"cells": [], "models": [], "agreement": []}
    assert figures(empty | nothing) == {}
    assert "nothing was measured" in render(empty | nothing, {}, UI_COMMAND)


def test_the_same_summary_gives_the_same_page(full: Any, page: str) -> None:
    assert page == render(full, figures(full), UI_COMMAND)


def test_figures_are_saved_as_png_and_svg(drawn: dict[str, Figure], tmp_path: Path) -> None:
    paths = save_figures(drawn, tmp_path / "made" / "here")
    names = {
        "quality_and_flops", "quality_and_seconds", "agreement", "reward_gap", "training_loss",
        "weights", "paired_resolved", "paired_rubric",
    }  # fmt: skip
    assert {path.name for path in paths} == {f"{n}.{s}" for n in names for s in ("png", "svg")}
    for path in paths:
        start = path.read_bytes()[:5]
        assert start == (b"\x89PNG\r" if path.suffix == ".png" else b"<?xml")


@pytest.mark.parametrize(("cost", "unit"), [("flops", 1e9), ("seconds", 1.0)])
def test_each_cell_and_each_point_of_a_curve_is_drawn_where_it_was_measured(
    full: Any, drawn: dict[str, Figure], cost: str, unit: float
) -> None:
    panels = drawn[f"quality_and_{cost}"].axes
    assert [axes.get_ylabel() for axes in panels] == ["ORM reward", "resolved"]
    points = [
        *full["cells"],
        *(point for curve in full["bon_curves"] for point in curve["points"]),
    ]
    for axes, metric in zip(panels, ("orm_reward", "resolved"), strict=True):
        at = {p for line in axes.lines for p in points_of(line)}
        for point in points:
            assert (point["cost"][cost] / unit, point["metrics"][metric]["value"]) in at
        assert axes.get_xscale() == "log"
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert ticks and not any("$" in text for text in ticks)


def test_a_cell_is_marked_by_its_methods_shape_and_its_scorers_colour(
    full: Any, drawn: dict[str, Figure]
) -> None:
    axes = drawn["quality_and_flops"].axes[1]
    shape: dict[str, object] = {}
    colour: dict[str, object] = {}
    for cell in full["cells"]:
        place = (cell["cost"]["flops"] / 1e9, cell["metrics"]["resolved"]["value"])
        (line,) = [
            line for line in axes.lines
            if str(line.get_marker()) in "oDs^vPX" and place in points_of(line)
        ]  # fmt: skip
        assert shape.setdefault(cell["method"], line.get_marker()) == line.get_marker()
        assert colour.setdefault(cell["scorer"], line.get_color()) == line.get_color()
    assert len(set(shape.values())) == len(shape) and len(set(colour.values())) == len(colour)


def test_flops_are_written_in_a_unit_in_which_the_smallest_is_at_least_one(
    full: Any,
) -> None:
    assert flops_unit([3e9, 2e6]) == (1e6, "MFLOP") and flops_unit([1e12]) == (1e12, "TFLOP")
    assert flops_unit([0.0, 5e3]) == flops_unit([]) == (1.0, "FLOP")
    table = cells_table(full, detail=True)
    names = [column.name for column in table.columns]
    for cell, row in zip(method_order(full["cells"]), table.rows, strict=True):
        for name, column in {
            "flops": "GFLOP/prompt", "policy_flops": "policy GFLOP", "reward_flops": "reward GFLOP",
        }.items():  # fmt: skip
            assert row[names.index(column)].text == f"{cell['cost'][name] / 1e9:,.1f}"


def test_at_equal_budget_a_row_says_which_n_it_is_against_and_what_that_took(
    full: Any, page: str
) -> None:
    table = equal_budget_table(full)
    rows = [[entry.text for entry in row] for row in table.rows]
    assert [row[:6] for row in rows] == [
        ["args", "prm_sst", "FLOPs", "BoN-3", "0.97", "300"],
        ["args", "prm_sst", "seconds", "BoN-4*", "0.42", "300"],
        ["cards", "orm", "FLOPs", "BoN-1\N{DAGGER}", "1.23", "300"],
    ]
    assert [c.name for c in table.columns[6:]] == ["resolved", "rubric", "win-tie", "ORM reward"]
    assert rows[0][6] == paired(full["equal_budget"][1]["tests"]["resolved"])
    assert len(budget_marks(full)) == 2
    shown = _Text(page).words, [line.strip() for line in _printed(full, 200).splitlines()]
    assert all(mark in words for mark in budget_marks(full) for words in shown)
    some = full | {"equal_budget": full["equal_budget"][1:2]}
    assert budget_marks(some) == []


def test_without_best_of_n_there_is_no_table_of_equal_budgets_and_no_line(
    full: Any,
) -> None:
    bare = full | {"equal_budget": [], "bon_curves": []}
    assert "At equal budget" not in render(bare, {}, UI_COMMAND)
    assert "At equal budget" not in _printed(bare, 200)
    figure = quality_figures(bare, colours([]) | dict.fromkeys(SCORERS, "black"))[
        "quality_and_flops"
    ]
    assert figure is not None
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "cards" in labels and not any("n = 1" in text for text in labels)


def test_the_forest_puts_each_difference_on_its_own_row(
    full: Any, drawn: dict[str, Figure]
) -> None:
    figure = drawn["paired_resolved"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == "bon, orm" and len(labels) == len(SEARCHES) * len(SCORERS)
    baselines = [axes.get_title() for axes in figure.axes]
    for test in (t for t in full["comparisons"] if t["metric"] == "resolved"):
        axes = figure.axes[baselines.index(f"against {test['baseline']}")]
        row = labels.index(f"{test['method']}, {test['scorer']}")
        points = [p for line in axes.lines for p in points_of(line)]
        assert (test["test"]["difference"], row) in [(x, int(y)) for x, y in points]
