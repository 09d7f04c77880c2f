"""What a cell leaves: responses.parquet with step scores, grades and costs, and its own metrics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.evaluation.flops import FLOPS, Sizes
from orchestrator.evaluation.metric import METRICS
from orchestrator.records import Cost, Prompt, Response
from orchestrator.scorers.parameters import scorer_parameters
from orchestrator.search.methods.best_of_n import SamplesState
from orchestrator.search.problem import Candidate, Problem
from orchestrator.search.shared_samples import ScoredSamples, best_of_first, curve_sizes

COUNTS = tuple(field.name for field in fields(Cost))
COSTS = (*COUNTS, *FLOPS)
Row = Callable[[Prompt, Response], dict[str, Any]]


def write_drawn(file: Path, problems: Sequence[Problem], drawn: Sequence[SamplesState]) -> None:
    """Writes shared samples: a row a prompt, with lists of token ids and stop reasons."""
    rows = [
        {
            "prompt_id": problem.prompt_id,
            "token_ids": [list(sample.token_ids) for sample in state.candidates],
            "stop": ["end" if sample.finished else "length" for sample in state.candidates],
            "margin": state.margin,
            **asdict(state.cost),
        }
        for problem, state in zip(problems, drawn, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)


def read_drawn(file: Path) -> dict[str, SamplesState]:
    """Reads shared samples by prompt id: best-of-N's state before anything is scored."""
    return {
        row["prompt_id"]: SamplesState(
            tuple(
                Candidate(tuple(ids), stop == "end")
                for ids, stop in zip(row["token_ids"], row["stop"], strict=True)
            ),
            cost=Cost(**{name: row[name] for name in COUNTS}),
            margin=row["margin"],
        )
        for row in pq.read_table(file).to_pylist()
    }


def sizes_of(sweep: Sweep, scorer: str | None) -> Sizes:
    """N of the policy and of a cell's scorer, from the headers of their checkpoints."""
    policy = matrix_parameters(sweep.checkpoint("policy"), language_head=True)
    return Sizes(policy, 0.0 if scorer is None else scorer_parameters(sweep.scorer(scorer)))


def write_responses(
    file: Path,
    sweep: Sweep,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    scorer: str | None,
) -> None:
    """Writes a cell's responses in the order of the prompts."""
    row = _row_of(sweep, scorer)
    _write(file, [
        {
            **row(prompt, response),
            "prompt": prompt.messages[-1]["content"],
            "token_ids": list(response.token_ids),
            "step_scores": list(response.step_scores),
        }
        for prompt, response in zip(prompts, responses, strict=True)
    ])  # fmt: skip


def write_curve(
    file: Path,
    sweep: Sweep,
    prompts: Sequence[Prompt],
    judged: Sequence[ScoredSamples],
    scorer: str,
) -> None:
    """Writes best-of-n for each n of a curve: for each n the rows of all prompts, in their order.

    A row has ``n`` and what a row of responses.parquet has, without token ids.
    """
    row = _row_of(sweep, scorer)
    sizes = curve_sizes(min(len(one.scored) for one in judged))
    _write(file, [
        {"n": n, **row(prompt, best_of_first(one, n))}
        for n in sizes
        for prompt, one in zip(prompts, judged, strict=True)
    ])  # fmt: skip


def cell_figures(
    sweep: Sweep,
    step: Step,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    folder: Path,
    parameters: dict[str, Any],
) -> Figures:
    """Means of a cell for MLflow; intervals and pairings come in the evaluation."""
    table = pq.read_table(folder / "responses.parquet")
    measured = (*METRICS, *sweep.config.data.counted)
    names = {"score": "reward"} | {n: n for n in measured if n in table.column_names}
    metrics = {
        name: float(np.mean(table[column].to_numpy()))
        for column, name in names.items()
        if table[column].null_count == 0
    }
    metrics["length"] = float(np.mean([len(r.token_ids) for r in responses]))
    metrics["finished"] = float(np.mean([r.stop == "end" for r in responses]))
    metrics |= {f"cost_{name}": float(np.mean(table[name].to_numpy())) for name in COSTS}
    return {"metrics": metrics, "parameters": parameters}


def _row_of(sweep: Sweep, scorer: str | None) -> Row:
    """What a response's row holds: text, score, grades and costs."""
    chat, sizes = sweep.chat("policy"), sizes_of(sweep, scorer)
    grader = sweep.config.data.grade

    def row(prompt: Prompt, response: Response) -> dict[str, Any]:
        text = chat.response_text(response.token_ids)
        return {
            "prompt_id": prompt.prompt_id,
            "response": text,
            "length": len(response.token_ids),
            "stop": response.stop,
            "score": response.score,
            "margin": response.margin,
            **grader(prompt, text, response.stop == "end"),
            **_measured(prompt, text, response),
            **asdict(response.cost),
            **sizes.flops(response.cost),
        }

    return row


def _measured(prompt: Prompt, text: str, response: Response) -> dict[str, float]:
    """The metrics that are computed from one response."""
    values = {}
    for name, metric in METRICS.items():
        if not metric.is_measured():
            continue
        value = metric.measure(prompt, text, response)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"metric {name} of prompt {prompt.prompt_id}: {value!r} is no finite number"
            )
        values[name] = float(value)
    return values


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    schema = pa.Table.from_pylist(rows).schema
    # All null or empty without a scorer: no type to infer.
    for name, kind in (("score", pa.float64()), ("step_scores", pa.list_(pa.float64()))):
        if (index := schema.get_field_index(name)) >= 0:
            schema = schema.set(index, pa.field(name, kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
