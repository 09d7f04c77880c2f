"""Step 3: preference pairs of whole responses for ORM, reference and PRM.

In the embedded world two samples of the policy, labelled by the noisy chooser; else the data's own
pairs. Pairs too long for the models go to the rejects.
"""

from collections.abc import Sequence
from pathlib import Path

import ray

from actors.policy import PolicyPlace
from jobs.steps.data import PAIR_SPLITS
from jobs.steps.sweep import Figures, Step, Sweep
from orchestrator.config.sections import HelpdeskData
from orchestrator.data.rejects import refuse, too_long, write_rejects
from orchestrator.data.tables import read_pairs_table, read_prompts, write_pairs
from orchestrator.engines.chat import load_chat
from orchestrator.randomness import stream_key
from orchestrator.records import PreferencePair, Prompt, Reject
from orchestrator.search.engines import SampleRequest
from orchestrator.stages.progress import Meter
from orchestrator.world.preferences import label_pair

PROMPTS_PER_CALL = 512  # rollouts asked for at once; progress is seen call by call


def policy_place(sweep: Sweep, threads: int) -> PolicyPlace:
    """The sweep's policy as its actor is asked for it."""
    decoding = sweep.config.decoding
    return PolicyPlace(
        sweep.checkpoint("policy"), decoding.temperature, decoding.top_p, sweep.device, threads
    )


def run(sweep: Sweep, step: Step, folder: Path, meter: Meter) -> Figures:
    """Writes pairs_{orm,reference,prm}.parquet and what was refused."""
    if isinstance(sweep.config.data, HelpdeskData):
        return _roll_out(sweep, sweep.config.data, folder, meter)
    names = (*PAIR_SPLITS, "test")
    splits = {name: read_pairs_table(sweep.file("data", f"pairs_{name}.parquet")) for name in names}
    return _keep_what_fits(sweep, splits, folder)


def _roll_out(sweep: Sweep, data: HelpdeskData, folder: Path, meter: Meter) -> Figures:
    counts = (data.orm_pairs, data.reference_pairs, data.prm_pairs)
    prompts = {
        name: read_prompts(sweep.file("data", f"prompts_{name}.parquet")) for name in PAIR_SPLITS
    }
    total, done, same = sum(map(len, prompts.values())), 0, 0
    metrics: dict[str, float] = {}
    for name, count in zip(PAIR_SPLITS, counts, strict=True):
        pairs: list[PreferencePair] = []
        for start in range(0, len(prompts[name]), PROMPTS_PER_CALL):
            chunk = prompts[name][start : start + PROMPTS_PER_CALL]
            labelled = _label(sweep, chunk, data.preference_sharpness)
            pairs += [pair for pair in labelled if pair is not None]
            same += sum(pair is None for pair in labelled)
            done += len(chunk)
            meter.update(done, total)
        write_pairs(folder / f"pairs_{name}.parquet", pairs[:count])
        metrics[f"pairs_{name}"] = len(pairs[:count])
    write_rejects(folder / "rejects.parquet", [])
    return {"metrics": {**metrics, "same_response": same}}


def _label(
    sweep: Sweep, prompts: Sequence[Prompt], sharpness: float
) -> list[PreferencePair | None]:
    """Two samples of each prompt, and which of them is preferred."""
    seed, limit = sweep.config.seed, sweep.config.decoding.max_new_tokens
    chat = load_chat(sweep.checkpoint("policy"))
    requests = [
        SampleRequest(
            chat.prompt_ids(prompt.messages),
            (),
            tuple(stream_key(seed, prompt.prompt_id, "rollout", i) for i in range(2)),
            limit,
        )
        for prompt in prompts
    ]
    place = policy_place(sweep, sweep.cores)
    sampled = ray.get(sweep.policy_actor().sample.remote(place, requests))
    pairs = []
    for prompt, answer in zip(prompts, sampled, strict=True):
        first, second = answer.continuations
        texts = chat.text(first.token_ids), chat.text(second.token_ids)
        finished = first.stop == "end", second.stop == "end"
        pairs.append(label_pair(prompt, *texts, finished, sharpness, seed))
    return pairs


def _keep_what_fits(sweep: Sweep, splits: dict[str, list[PreferencePair]], folder: Path) -> Figures:
    chat = load_chat(sweep.checkpoint("policy"))
    limit = sweep.config.models.architecture.max_position_embeddings
    rejects: list[Reject] = []
    metrics: dict[str, float] = {}
    for name, pairs in splits.items():
        kept = []
        for number, pair in enumerate(pairs):
            longest = max(len(chat.response_ids(text)) for text in (pair.chosen, pair.rejected))
            tokens = len(chat.prompt_ids(pair.prompt.messages)) + longest + len(chat.closing_ids)
            reason = too_long(tokens, limit)
            if reason:
                rejects.append(refuse(f"pairs_{name}", number, reason, pair.pair_id))
            else:
                kept.append(pair)
        write_pairs(folder / f"pairs_{name}.parquet", kept)
        metrics[f"pairs_{name}"] = len(kept)
    write_rejects(folder / "rejects.parquet", rejects)
    return {"metrics": {**metrics, "rejects": len(rejects)}}
