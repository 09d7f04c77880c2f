"""Step 3: preference pairs of whole responses for ORM, reference and PRM.

Two samples of the policy each, labelled by the task, or the pairs that come with
the data. Pairs too long for the models go to the rejects.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from actors.backends import ActorPolicy
from jobs.sweep.backends import policy_of
from jobs.sweep.readers import check_some_fit, readers, refused
from jobs.sweep.sweep import Figures, Step, Sweep
from orchestrator.data.rejects import make_reject, write_rejects
from orchestrator.data.tables import read_pairs_table, read_prompts, write_pairs
from orchestrator.randomness import stream_key
from orchestrator.records import PreferencePair, Prompt, Reject
from orchestrator.search.engines import SampleRequest
from orchestrator.stages.progress import Meter
from orchestrator.tasks.task import PAIR_SPLITS, Task

PROMPTS_PER_CALL = 512  # rollouts asked for at once; progress is seen call by call
CALLS_IN_FLIGHT = 2


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes pairs_{orm,reference,prm}.parquet and what was refused."""
    if sweep.config.data.samples_pairs:
        return _roll_out(sweep, sweep.config.data, folder, meter)
    models, room = readers(sweep), sweep.config.decoding.max_new_tokens
    prompts = read_prompts(sweep.file("data", "prompts_test.parquet"))
    reasons = (refused(models, prompt.messages, (), room) for prompt in prompts)
    check_some_fit("test prompts", reasons)  # before anything is trained for them
    names = (*PAIR_SPLITS, "test")
    splits = {name: read_pairs_table(sweep.file("data", f"pairs_{name}.parquet")) for name in names}
    return _keep_what_fits(sweep, splits, folder)


def _roll_out(sweep: Sweep, task: Task, folder: Path, meter: Meter) -> Figures:
    counts = task.row_counts or {}
    prompts = {
        name: read_prompts(sweep.file("data", f"prompts_{name}.parquet")) for name in PAIR_SPLITS
    }
    labelled = asyncio.run(
        _label_all(sweep, task, [p for n in PAIR_SPLITS for p in prompts[n]], meter)
    )
    metrics: dict[str, float] = {}
    for name in PAIR_SPLITS:
        own, labelled = labelled[: len(prompts[name])], labelled[len(prompts[name]) :]
        pairs = [pair for pair in own if pair is not None]
        write_pairs(folder / f"pairs_{name}.parquet", pairs[: counts.get(name)])
        metrics[f"pairs_{name}"] = len(pairs[: counts.get(name)])
        metrics[f"same_response_{name}"] = len(own) - len(pairs)
    write_rejects(folder / "rejects.parquet", [])
    return {"metrics": metrics}


async def _label_all(
    sweep: Sweep, task: Task, prompts: Sequence[Prompt], meter: Meter
) -> list[PreferencePair | None]:
    """The pair of each prompt; while one call's samples are labelled, the next are drawn."""
    policy, places = policy_of(sweep), asyncio.Semaphore(CALLS_IN_FLIGHT)
    meter.update(0, len(prompts))

    async def label(chunk: Sequence[Prompt]) -> list[PreferencePair | None]:
        async with places:
            pairs = await _label(sweep, policy, chunk, task)
        meter.advance(len(chunk))
        return pairs

    starts = range(0, len(prompts), PROMPTS_PER_CALL)
    chunks = await asyncio.gather(*(label(prompts[i : i + PROMPTS_PER_CALL]) for i in starts))
    return [pair for chunk in chunks for pair in chunk]


async def _label(
    sweep: Sweep, policy: ActorPolicy, prompts: Sequence[Prompt], task: Task
) -> list[PreferencePair | None]:
    """Two samples of each prompt, and which of them is preferred."""
    seed, limit = sweep.config.seed, sweep.config.decoding.max_new_tokens
    chat = sweep.chat("policy")
    requests = [
        SampleRequest(
            chat.prompt_ids(prompt.messages),
            (),
            tuple(stream_key(seed, prompt.prompt_id, "rollout", i) for i in range(2)),
            limit,
        )
        for prompt in prompts
    ]
    pairs = []
    for prompt, answer in zip(prompts, await policy.sample_all(requests), strict=True):
        first, second = answer.continuations
        texts = chat.response_text(first.token_ids), chat.response_text(second.token_ids)
        finished = first.stop == "end", second.stop == "end"
        pairs.append(task.prefer(prompt, texts, finished, seed))
    return pairs


def _keep_what_fits(sweep: Sweep, splits: dict[str, list[PreferencePair]], folder: Path) -> Figures:
    models = readers(sweep)
    rejects: list[Reject] = []
    metrics: dict[str, float] = {}
    for name, pairs in splits.items():
        kept = []
        for number, pair in enumerate(pairs):
            reason = refused(models, pair.prompt.messages, (pair.chosen, pair.rejected))
            if reason:
                rejects.append(make_reject(f"pairs_{name}", number, reason, pair.pair_id))
            else:
                kept.append(pair)
        if not kept:
            reasons = (reject.reason for reject in rejects[len(rejects) - len(pairs) :])
            check_some_fit(f"pairs for {name}", reasons)
        write_pairs(folder / f"pairs_{name}.parquet", kept)
        metrics[f"pairs_{name}"] = len(kept)
    write_rejects(folder / "rejects.parquet", rejects)
    return {"metrics": {**metrics, "rejects": len(rejects)}}
