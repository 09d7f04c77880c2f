"""The stage ``pairs``: make preference pairs of full responses for ORM, reference and PRM.

A pair is two samples of the policy that the task labels, or it comes with the data. Pairs from
files that the models cannot read (too long, refused by the chat template, identical tokens) are
written to the rejects.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.backends import ActorPolicy
from jobs.sweep.backends import Engines
from jobs.sweep.length_limits import LengthLimitingModels
from orchestrator.conversations.chat import Chat
from orchestrator.data.context_length import ContextLimit, check_any_usable, first_rejection_reason
from orchestrator.data.rejects import make_reject, write_rejects
from orchestrator.data.tables import read_pairs_table, read_prompts, write_pairs
from orchestrator.randomness import stream_key
from orchestrator.records import PreferencePair, Prompt, Reject
from orchestrator.search.engines import SampleRequest
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.tasks.task import PAIR_SPLITS, Task

PROMPTS_PER_CALL = 512  # prompts sampled per call; progress is shown per call
CALLS_IN_FLIGHT = 2


@dataclass(frozen=True)
class PairsInputs:
    """Inputs of the step.

    Attributes:
        task: determines the source of the pairs, and labels samples.
        folder: folder of the stage that reads the data.
        length_limiting_models: the models that the pairs must fit.
        chat: chat format of the policy.
        engines: the policy in actors.
        seed: seed of the run.
        max_new_tokens: largest number of tokens of a response.
    """

    task: Task
    folder: Path
    length_limiting_models: LengthLimitingModels
    chat: Chat
    engines: Engines
    seed: int
    max_new_tokens: int


def run(inputs: PairsInputs, folder: Path, progress: ProgressBar) -> StageResult:
    """Write pairs_{orm,reference,prm}.parquet and the rejects."""
    if inputs.task.samples_pairs:
        return _roll_out(inputs, folder, progress)
    limits = inputs.length_limiting_models.load()
    prompts = read_prompts(inputs.folder / "prompts_test.parquet")
    reasons = (
        first_rejection_reason(limits, prompt.messages, (), inputs.max_new_tokens)
        for prompt in prompts
    )
    check_any_usable("test prompts", reasons)  # before anything is trained for them
    names = (*PAIR_SPLITS, "test")
    splits = {name: read_pairs_table(inputs.folder / f"pairs_{name}.parquet") for name in names}
    return _keep_what_fits(limits, splits, folder)


def _roll_out(inputs: PairsInputs, folder: Path, progress: ProgressBar) -> StageResult:
    counts = inputs.task.row_counts or {}
    prompts = {
        name: read_prompts(inputs.folder / f"prompts_{name}.parquet") for name in PAIR_SPLITS
    }
    labelled = asyncio.run(
        _label_all(inputs, [p for n in PAIR_SPLITS for p in prompts[n]], progress)
    )
    metrics: dict[str, float] = {}
    for name in PAIR_SPLITS:
        count_prompts = len(prompts[name])
        split, labelled = labelled[:count_prompts], labelled[count_prompts:]
        pairs = [pair for pair in split if pair is not None]
        write_pairs(folder / f"pairs_{name}.parquet", pairs[: counts.get(name)])
        metrics[f"pairs_{name}"] = len(pairs[: counts.get(name)])
        metrics[f"prompts_without_pair_{name}"] = len(split) - len(pairs)
    write_rejects(folder / "rejects.parquet", [])
    return {"metrics": metrics}


async def _label_all(
    inputs: PairsInputs, prompts: Sequence[Prompt], progress: ProgressBar
) -> list[PreferencePair | None]:
    """Return the pair of each prompt; samples of the next prompts are drawn during labelling."""
    policy, slots = inputs.engines.policy(), asyncio.Semaphore(CALLS_IN_FLIGHT)
    progress.update(0, len(prompts))

    async def label(chunk: Sequence[Prompt]) -> list[PreferencePair | None]:
        async with slots:
            pairs = await _label(inputs, policy, chunk)
        progress.advance(len(chunk))
        return pairs

    starts = range(0, len(prompts), PROMPTS_PER_CALL)
    chunks = await asyncio.gather(*(label(prompts[i : i + PROMPTS_PER_CALL]) for i in starts))
    return [pair for chunk in chunks for pair in chunk]


async def _label(
    inputs: PairsInputs, policy: ActorPolicy, prompts: Sequence[Prompt]
) -> list[PreferencePair | None]:
    """Sample two responses to each prompt, and label which one is preferred."""
    seed, chat = inputs.seed, inputs.chat
    requests = [
        SampleRequest(
            chat.prompt_ids(prompt.messages),
            (),
            tuple(stream_key(seed, prompt.prompt_id, "rollout", i) for i in range(2)),
            inputs.max_new_tokens,
        )
        for prompt in prompts
    ]
    pairs = []
    for prompt, answer in zip(prompts, await policy.sample_all(requests), strict=True):
        first, second = answer.continuations
        texts = chat.response_text(first.token_ids), chat.response_text(second.token_ids)
        finished = first.stop == "end", second.stop == "end"
        pairs.append(inputs.task.prefer(prompt, texts, finished, seed))
    return pairs


def _keep_what_fits(
    limits: Sequence[ContextLimit], splits: dict[str, list[PreferencePair]], folder: Path
) -> StageResult:
    rejects: list[Reject] = []
    metrics: dict[str, float] = {}
    for name, pairs in splits.items():
        kept = []
        for number, pair in enumerate(pairs):
            reason = first_rejection_reason(
                limits, pair.prompt.messages, (pair.chosen, pair.rejected)
            )
            if reason:
                rejects.append(make_reject(f"pairs_{name}", number, reason, pair.pair_id))
            else:
                kept.append(pair)
        if not kept:
            reasons = (reject.reason for reject in rejects[len(rejects) - len(pairs) :])
            check_any_usable(f"pairs for {name}", reasons)
        write_pairs(folder / f"pairs_{name}.parquet", kept)
        metrics[f"pairs_{name}"] = len(kept)
    write_rejects(folder / "rejects.parquet", rejects)
    return {"metrics": {**metrics, "rejects": len(rejects)}}
