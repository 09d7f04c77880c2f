"""The data stage on files in public forms: splits, test prompts with true answers, rejects."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.sweep.steps import data
from orchestrator.config.load import load_config
from orchestrator.data.tables import read_demonstrations, read_pairs_table, read_prompts
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def staged(folder: Path, overrides: list[str]) -> StageResult:
    """The result of the stage, whose files are then in ``folder``."""
    config = load_config(None, overrides)
    with ProgressBar(Console(quiet=True), "data", None, "rows") as progress:
        return data.run(data.DataInputs(config.data, config.seed), folder, progress)


def math(number: int) -> dict[str, Any]:
    solution = f"It is \\boxed{{\\frac{{{number}}}{{2}}}}."
    return {"problem": f"half of {number}?", "solution": solution, "level": 1}


def test_math_has_demonstrations_pairs_and_test_prompts_with_latex_answers(tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"half of {i}?", "chosen": f"\\boxed{{{i / 2}}}", "rejected": "\\boxed{-1}"}
        for i in range(40)
    ]
    files = {
        "demonstrations": written(tmp_path / "train.jsonl", [math(i) for i in range(40, 60)]),
        "pairs": written(tmp_path / "pairs.jsonl", pairs),
        "test": written(tmp_path / "test.jsonl", [math(i) for i in range(30, 80)]),
    }
    fields = ", ".join(f"{name}: {file}" for name, file in files.items())
    result = staged(tmp_path, [f"data={{task: math, {fields}, test_prompts: 8}}"])

    assert result["metrics"]["test_prompts"] == 8
    assert len(read_demonstrations(tmp_path / "demonstrations.parquet")) == 20
    for prompt in read_prompts(tmp_path / "prompts_test.parquet"):
        number = int(prompt.messages[0]["content"].split()[2].rstrip("?"))
        assert number >= 60  # neither in the pairs nor in the demonstrations
        assert prompt.facts == {"answer": f"\\frac{{{number}}}{{2}}"}


def test_pairs_of_ranked_completions_are_split_by_prompt_and_rejects_are_counted(
    tmp_path: Path,
) -> None:
    rows: list[dict[str, Any]] = [
        {
            "context": [{"role": "user", "content": f"question {i}"}],
            "completions": [{"rank": rank, "completion": f"answer {rank}"} for rank in range(3)],
        }
        for i in range(30)
    ]
    rows.append({"prompt": "x", "chosen": "a", "rejected": "b", "score_chosen": 1,
                 "score_rejected": 1})  # fmt: skip
    file = written(tmp_path / "ranked.jsonl", rows)
    result = staged(tmp_path, [f"data={{task: hh_rlhf, pairs: {file}, test_prompts: 4}}"])

    assert result["rejects"] == {"tie": 1}
    splits = {
        name: read_pairs_table(tmp_path / f"pairs_{name}.parquet")
        for name in ("orm", "reference", "prm", "test")
    }
    assert len(splits["test"]) == 3 * 4
    ids = [pair.pair_id for split in splits.values() for pair in split]
    assert len(set(ids)) == len(ids) and all(":" in name for name in ids)
    prompts = [{pair.prompt.prompt_id for pair in split} for split in splits.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
