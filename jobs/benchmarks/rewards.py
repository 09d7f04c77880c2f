"""Implement `jobs/bench.py rewards`: run the cases and print their results."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jobs.benchmarks.names import PIPELINE, TOKEN_CLASSIFY
from jobs.benchmarks.pipeline import pipeline_result
from jobs.benchmarks.prefixes import prefix_result
from jobs.benchmarks.setting import Setting, device_description, matmul_flops_per_second
from jobs.benchmarks.token_classify import token_classify_result


def bench_rewards(
    names: Sequence[str], repeats: int, rows: int, setting: Setting, file: Path | None
) -> None:
    """Measure the cases, and print a table and a line of JSON.

    Args:
        names: the cases.
        repeats: timed runs of each.
        rows: rows of the pipeline.
        setting: device and model.
        file: also gets the line of JSON.

    Raises:
        ModuleNotFoundError: an optional case needs an extra that is not installed.
    """
    console = Console(stderr=True)
    rate = matmul_flops_per_second(setting)
    results = []
    for name in names:
        console.print(f"{name} ...", highlight=False)
        if name == PIPELINE:
            result = pipeline_result(rows, setting, console)
        elif name == TOKEN_CLASSIFY:
            result = token_classify_result(repeats, setting)
        else:
            result = prefix_result(name, repeats, setting)
        results.append({**result, "matrix_flops": rate})
    Console(width=120).print(_table(results))
    line = json.dumps({"device": device_description(setting), "results": results})
    print(line)
    if file is not None:
        file.write_text(line + "\n")


def _table(results: Sequence[dict[str, object]]) -> Table:
    table = Table(title="Reward models: ratio = other / ours in scoring, ours / ORM in training")
    headings = ("name", "ours_s", "other_s", "ratio", "floor", "ceiling",
                "ours_peak_mib", "other_peak_mib", "of matrix rate")  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for result in results:
        share = float(str(result["flops"])) / float(str(result["matrix_flops"]))
        cells = [result[heading] for heading in headings[:-1]]
        shown = [f"{c:.3g}" if isinstance(c, float) else str(c or "") for c in cells]
        table.add_row(*shown, f"{share:.0%}")
    return table
