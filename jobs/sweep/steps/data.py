"""The stage ``data``: read demonstrations, preference pairs or prompts, and test prompts."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.rejects import reasons, write_rejects
from orchestrator.data.tables import write_demonstrations, write_pairs, write_prompts
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import Task, TaskData, check_data


@dataclass(frozen=True)
class DataInputs:
    """Inputs of the step: the task, and the run's seed."""

    task: Task
    seed: int


def run(inputs: DataInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write demonstrations, prompts or pairs of each split, the test prompts and the rejects."""
    data = inputs.task.read(inputs.seed, progress.update)
    check_data(inputs.task, data)
    write_demonstrations(folder / "demonstrations.parquet", data.demonstrations)
    for name, pairs in data.pairs.items():
        write_pairs(folder / f"pairs_{name}.parquet", pairs)
    for name, prompts in {**data.prompts, "test": data.test}.items():
        write_prompts(folder / f"prompts_{name}.parquet", prompts)
    write_rejects(folder / "rejects.parquet", data.rejects)
    return _result(data)


def _result(data: TaskData) -> StageResult:
    metrics: dict[str, float] = {
        "demonstrations": len(data.demonstrations),
        "test_prompts": len(data.test),
    }
    metrics |= {f"pairs_{name}": len(pairs) for name, pairs in data.pairs.items()}
    metrics |= {f"prompts_{name}": len(prompts) for name, prompts in data.prompts.items()}
    metrics["rejects"] = len(data.rejects)
    return {"metrics": metrics, "rejects": reasons(data.rejects)}
