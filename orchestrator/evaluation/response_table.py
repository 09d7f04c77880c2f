"""Write the responses of a cell as a Parquet table with scores, grades, metrics and costs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.conversations.chat import Chat
from orchestrator.evaluation.costs import COSTS
from orchestrator.evaluation.flops import Sizes
from orchestrator.evaluation.metric import METRICS
from orchestrator.records import Prompt, Response
from orchestrator.search.shared_samples import ScoredSamples, best_of_first, curve_sizes
from orchestrator.tasks.task import Task, grades_of

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class ResponseRows:
    """Builds the table rows of responses.

    Attributes:
        chat: chat format of the policy, which decodes the responses.
        sizes: parameters of policy and scorer, for FLOPs.
        task: grades the responses.
    """

    chat: Chat
    sizes: Sizes
    task: Task

    def row(self, prompt: Prompt, response: Response) -> Row:
        """Return the text, score, grades, metrics and costs of a response.

        Raises:
            ValueError: a metric or a grade is not a finite number.
        """
        text = self.chat.response_text(response.token_ids)
        return {
            "prompt_id": prompt.prompt_id,
            "response": text,
            "length": len(response.token_ids),
            "stop": response.stop,
            "score": response.score,
            "margin": response.margin,
            **grades_of(self.task, prompt, text, response.stop == "end"),
            **_measured(prompt, text, response),
            **asdict(response.cost),
            **self.sizes.flops(response.cost),
        }


def write_responses(
    file: Path, rows: ResponseRows, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> None:
    """Write a cell's responses in the order of the prompts."""
    _write(file, [
        {
            **rows.row(prompt, response),
            "prompt": prompt.messages[-1]["content"],
            "token_ids": list(response.token_ids),
            "step_scores": list(response.step_scores),
        }
        for prompt, response in zip(prompts, responses, strict=True)
    ])  # fmt: skip


def write_curve(
    file: Path, rows: ResponseRows, prompts: Sequence[Prompt], judged: Sequence[ScoredSamples]
) -> None:
    """Write best-of-N for each n of a curve: for each n the rows of all prompts, in their order.

    A row has ``n`` and the columns of responses.parquet, without token ids and step scores.
    """
    sizes = curve_sizes(min(len(one.scored) for one in judged))
    _write(file, [
        {"n": n, **rows.row(prompt, best_of_first(one, n))}
        for n in sizes
        for prompt, one in zip(prompts, judged, strict=True)
    ])  # fmt: skip


def cell_means(
    file: Path, responses: Sequence[Response], counts: Sequence[str]
) -> dict[str, float]:
    """Return the means of a cell's table for MLflow; the evaluation adds intervals.

    ``counts`` are the names of the task's grades that are counts.
    """
    table = pq.read_table(file)
    names = {"score": "reward"}
    names |= {name: name for name in (*METRICS, *counts) if name in table.column_names}
    means = {
        name: float(np.mean(table[column].to_numpy()))
        for column, name in names.items()
        if table[column].null_count == 0
    }
    means["length"] = float(np.mean([len(r.token_ids) for r in responses]))
    means["finished"] = float(np.mean([r.stop == "end" for r in responses]))
    return means | {f"cost_{name}": float(np.mean(table[name].to_numpy())) for name in COSTS}


def _measured(prompt: Prompt, text: str, response: Response) -> dict[str, float]:
    """Return the metrics that are computed from one response."""
    values = {}
    for name, metric in METRICS.items():
        if not metric.is_measured():
            continue
        value = metric.measure(prompt, text, response)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"metric {name} of prompt {prompt.prompt_id}: {value!r} is not a finite number"
            )
        values[name] = float(value)
    return values


def _write(file: Path, rows: list[Row]) -> None:
    schema = pa.Table.from_pylist(rows).schema
    # All null or empty without a scorer: no type to infer.
    for name, kind in (("score", pa.float64()), ("step_scores", pa.list_(pa.float64()))):
        if (index := schema.get_field_index(name)) >= 0:
            schema = schema.set(index, pa.field(name, kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
