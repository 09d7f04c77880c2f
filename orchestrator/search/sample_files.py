"""Shared samples as a Parquet file: a row per prompt, with lists of token ids and stop reasons."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.records import Cost
from orchestrator.search.methods.best_of_n import SamplesState
from orchestrator.search.problem import Candidate, Problem


def write_samples(file: Path, problems: Sequence[Problem], states: Sequence[SamplesState]) -> None:
    """Write the samples of each prompt."""
    rows = [
        {
            "prompt_id": problem.prompt_id,
            "token_ids": [list(sample.token_ids) for sample in state.candidates],
            "stop": ["end" if sample.finished else "length" for sample in state.candidates],
            "margin": state.margin,
            **asdict(state.cost),
        }
        for problem, state in zip(problems, states, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), file)


def read_samples(file: Path) -> dict[str, SamplesState]:
    """Return the samples by prompt id: best-of-N's state before anything is scored."""
    return {
        row["prompt_id"]: SamplesState(
            tuple(
                Candidate(tuple(ids), stop == "end")
                for ids, stop in zip(row["token_ids"], row["stop"], strict=True)
            ),
            cost=Cost(**{field.name: row[field.name] for field in fields(Cost)}),
            margin=row["margin"],
        )
        for row in pq.read_table(file).to_pylist()
    }
