"""What a cell leaves: responses.parquet with step scores, grades and costs, and its own metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.steps.sweep import Figures, Step, Sweep
from orchestrator.engines.chat import load_chat
from orchestrator.evaluation.diversity import diversity
from orchestrator.evaluation.graders import COUNTED, GRADERS
from orchestrator.records import Cost, Prompt, Response
from orchestrator.search.best_of_n import SamplesState
from orchestrator.search.problem import Candidate, Problem

COSTS = (
    "policy_tokens_sampled",
    "policy_tokens_computed",
    "reward_tokens_computed",
    "reward_tokens_reused",
    "policy_calls",
    "reward_calls",
    "seconds",
)


def write_drawn(file: Path, problems: Sequence[Problem], drawn: Sequence[SamplesState]) -> None:
    """Writes shared samples: a row a prompt, with lists of token ids and stop reasons."""
    rows = [
        {
            "prompt_id": problem.prompt_id,
            "token_ids": [list(sample.token_ids) for sample in state.candidates],
            "stop": ["end" if sample.finished else "length" for sample in state.candidates],
            "margin": state.margin,
            **_costs(state.cost),
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
            cost=Cost(**{name: row[name] for name in COSTS}),
            margin=row["margin"],
        )
        for row in pq.read_table(file).to_pylist()
    }


def write_responses(
    file: Path, sweep: Sweep, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> None:
    """Writes a cell's responses in the order of the prompts."""
    chat = load_chat(sweep.checkpoint("policy"))
    grader = GRADERS[sweep.config.data.task]
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        text = chat.text(response.token_ids)
        rows.append(
            {
                "prompt_id": prompt.prompt_id,
                "prompt": prompt.messages[-1]["content"],
                "response": text,
                "token_ids": list(response.token_ids),
                "stop": response.stop,
                "score": response.score,
                "step_scores": list(response.step_scores),
                "margin": response.margin,
                "diversity": diversity(text),
                **grader(prompt, text, response.stop == "end"),
                **_costs(response.cost),
            }
        )
    schema = pa.Table.from_pylist(rows).schema
    for name in ("score", "step_scores"):  # all null or empty without a scorer: no type to infer
        kind = pa.float64() if name == "score" else pa.list_(pa.float64())
        schema = schema.set(schema.get_field_index(name), pa.field(name, kind))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


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
    names = {"score": "reward", "diversity": "diversity"}
    graded = ("rubric", "resolved", "accuracy", *COUNTED.get(sweep.config.data.task, ()))
    names |= {n: n for n in graded if n in table.column_names}
    metrics = {
        name: float(np.mean(table[column].to_numpy()))
        for column, name in names.items()
        if table[column].null_count == 0
    }
    metrics["length"] = float(np.mean([len(r.token_ids) for r in responses]))
    metrics["finished"] = float(np.mean([r.stop == "end" for r in responses]))
    metrics |= {f"cost_{name}": float(np.mean(table[name].to_numpy())) for name in COSTS}
    return {"metrics": metrics, "parameters": parameters}


def _costs(cost: Cost) -> dict[str, float]:
    return {name: getattr(cost, name) for name in COSTS}
