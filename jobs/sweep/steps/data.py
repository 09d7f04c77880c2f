"""Step 1: preference data. The embedded world's prompts and demonstrations, or real pairs."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.config.sections import AnswerData, HelpdeskData, HHData
from orchestrator.data.files import none_usable
from orchestrator.data.pairs import read_pairs
from orchestrator.data.rejects import reasons, write_rejects
from orchestrator.data.splits import split_pairs
from orchestrator.data.tables import write_demonstrations, write_pairs, write_prompts
from orchestrator.randomness import stream_key
from orchestrator.records import Demonstration, PreferencePair, Prompt, Reject
from orchestrator.stages.progress import Meter
from orchestrator.tasks.gsm8k import read_questions
from orchestrator.tasks.helpdesk import agents
from orchestrator.tasks.helpdesk.extent import prompt_counts
from orchestrator.tasks.hh_rlhf import read_hh

PAIR_SPLITS = ("orm", "reference", "prm")
Row = TypeVar("Row")


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes demonstrations, prompts or pairs of each split, the test prompts and the rejects."""
    data, seed = sweep.config.data, sweep.config.seed
    if isinstance(data, HelpdeskData):
        return _helpdesk(data, seed, folder, meter)
    if isinstance(data, HHData):
        return _hh(data, seed, folder)
    return _questions(data, seed, folder)


def _helpdesk(data: HelpdeskData, seed: int, folder: Path, meter: Meter) -> Figures:
    pairs = (data.orm_pairs, data.reference_pairs, data.prm_pairs)
    sizes = prompt_counts(data.demonstrations, pairs, data.test_prompts)
    prompts = agents.prompts(sum(sizes), seed)
    borders = [0, *accumulate(sizes)]
    splits = [prompts[a:b] for a, b in pairwise(borders)]
    demonstrations = []
    for prompt in splits[0]:
        demonstrations.append(agents.demonstration(prompt, seed))
        meter.update(len(demonstrations), len(splits[0]))
    write_demonstrations(folder / "demonstrations.parquet", demonstrations)
    for name, split in zip((*PAIR_SPLITS, "test"), splits[1:], strict=True):
        write_prompts(folder / f"prompts_{name}.parquet", split)
    write_rejects(folder / "rejects.parquet", [])
    return {"metrics": {"prompts": len(prompts), "demonstrations": len(demonstrations)}}


def _hh(data: HHData, seed: int, folder: Path) -> Figures:
    pairs, rejects = _some(data.pairs, *read_hh(data.pairs))
    shares = {
        "policy": data.policy_share,
        "orm": data.orm_share,
        "reference": data.reference_share,
    }
    splits = split_pairs(pairs, shares, data.test_prompts, seed)
    demonstrations = [Demonstration(pair.prompt, pair.chosen) for pair in splits["policy"]]
    test = list({pair.prompt.prompt_id: pair.prompt for pair in splits["test"]}.values())
    return _write(folder, demonstrations, splits, test[: data.test_prompts], rejects)


def _questions(data: AnswerData, seed: int, folder: Path) -> Figures:
    pairs, rejects = _some(data.pairs, *read_pairs(data.pairs))
    demonstrations, bad = _some(data.demonstrations, *read_questions(data.demonstrations))
    questions, worse = _some(data.test, *read_questions(data.test))
    shares = {"orm": data.orm_share, "reference": data.reference_share}
    splits = split_pairs(pairs, shares, data.test_prompts, seed)
    seen = {pair.prompt.prompt_id for pair in pairs}
    seen |= {demonstration.prompt.prompt_id for demonstration in demonstrations}
    fresh = [row.prompt for row in questions if row.prompt.prompt_id not in seen]
    if not fresh:
        raise ValueError(
            f"data.test {data.test}: none of its {len(questions)} questions is left for the test:"
            " all are among data.pairs or data.demonstrations"
        )
    fresh.sort(key=lambda prompt: stream_key(seed, "test", prompt.prompt_id))
    return _write(
        folder, demonstrations, splits, fresh[: data.test_prompts], [*rejects, *bad, *worse]
    )


def _some(path: str, rows: list[Row], rejects: list[Reject]) -> tuple[list[Row], list[Reject]]:
    """What was read of a file.

    Raises:
        BadFile: no row of it can be used.
    """
    if not rows:
        first = next(iter(rejects), None)
        raise none_usable(
            path, len(rejects), first.reason if first else "", getattr(first, "row", 0)
        )
    return rows, rejects


def _write(
    folder: Path,
    demonstrations: Sequence[Demonstration],
    splits: dict[str, list[PreferencePair]],
    test: Sequence[Prompt],
    rejects: Sequence[Reject],
) -> Figures:
    write_demonstrations(folder / "demonstrations.parquet", demonstrations)
    for name in (*PAIR_SPLITS, "test"):
        write_pairs(folder / f"pairs_{name}.parquet", splits[name])
    write_prompts(folder / "prompts_test.parquet", test)
    write_rejects(folder / "rejects.parquet", rejects)
    counts = {f"pairs_{name}": len(splits[name]) for name in (*PAIR_SPLITS, "test")}
    return {
        "metrics": {
            "demonstrations": len(demonstrations),
            "test_prompts": len(test),
            "rejects": len(rejects),
            **counts,
        },
        "rejects": reasons(rejects),
    }
