"""Lower bounds of the memory and disk that a config needs, checked before anything starts.

They count weights with gradients and moments, prompts, the candidates of concurrent searches, and
the rows of a training's plan. Splits of files are not read: 1,000 training rows and all
``test_prompts`` are assumed. A config that passes may still need more than there is.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import psutil

from orchestrator.config.errors import ConfigError
from orchestrator.config.output_paths import existing, is_file
from orchestrator.config.tree import Config
from orchestrator.stages.output_folder import permanent_output_dir
from orchestrator.stages.store import Store

UNKNOWN_MEMORY = 2**46  # bytes of another machine or a GPU: none has more
BYTES_PER_TRAINED_PARAMETER = 16  # weight, gradient and two moments in float32
BYTES_PER_WEIGHT = 4  # on disk
BYTES_PER_PLAN_ROW = 32  # of the plan of a training
PLAN_ROWS_PER_STEP = 2.0  # the lists of a step take the memory of so many rows
BYTES_PER_PROMPT = 1_024
BYTES_PER_CANDIDATE, BYTES_PER_TOKEN = 200, 8  # a candidate, and each of its tokens
BYTES_PER_NUMBER = 8
MIB = 2**20
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
SPECIAL_TOKENS = 5  # of a tokenizer that the run makes
BATCHERS = 2  # batchers that run at once
ASSUMED_ROWS = 1_000  # of a split of a file that is not read yet


@dataclass(frozen=True)
class Demand:
    """The bytes of memory or disk that a field needs, and for what."""

    field: str
    value: int
    bytes: float
    what: str
    on_disk: bool = False


def check_sizes(config: Config, working_dir: Path) -> None:
    """Check that memory and disk suffice for the lower bounds of what the config needs.

    Raises:
        ConfigError: they do not; the message names the first field that does not fit.
    """
    path, _ = permanent_output_dir(config.output_dir, config.name, working_dir)
    disk = shutil.disk_usage(existing(Store(path).local)).total
    memory = _memory(config)
    for demand in demands(config):
        available = disk if demand.on_disk else memory
        if demand.bytes > available:
            kind = "disk" if demand.on_disk else "memory"
            raise ConfigError(
                f"{demand.field} = {demand.value}: {demand.what} need at least"
                f" {sized(demand.bytes)} of {kind}, and this machine has {sized(available)};"
                " valid: a smaller value"
            )


def demands(config: Config) -> Iterator[Demand]:
    """Yield the demands of a config, as far as they are known without its files."""
    yield from _models(config)
    yield from _data(config)
    yield from _trainings(config)
    yield from _search(config)
    yield from _evaluation(config)
    cluster = config.cluster
    for name in ("policy_cache_mib", "reward_cache_mib"):
        if (size := getattr(cluster, name)) is not None:
            what = "the cached keys and values of an actor"
            yield Demand(f"cluster.{name}", size, float(size) * MIB, what)


def sized(amount: float) -> str:
    """Return bytes as text in a suitable unit."""
    power = 0
    while amount >= 1024 and power < len(UNITS) - 1:
        amount, power = amount / 1024, power + 1
    return f"{amount:,.1f} {UNITS[power]}"


def _memory(config: Config) -> float:
    """Return the memory of the machine that computes; an upper bound if it is another machine."""
    cluster = config.cluster
    on_gpus = cluster.actor_gpus or cluster.train_worker_gpus
    if on_gpus or _joins_cluster():
        return UNKNOWN_MEMORY
    return float(psutil.virtual_memory().total)


def _joins_cluster() -> bool:
    """Whether the run joins a Ray cluster instead of starting one on this machine."""
    if "RAY_ADDRESS" in os.environ or "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return True
    # `ray start` on this machine writes the cluster's address into this file.
    temporary = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
    return is_file(Path(temporary, "ray", "ray_current_cluster"))


def _models(config: Config) -> Iterator[Demand]:
    size = config.models.architecture
    if config.models.policy is not None:
        return
    words = SPECIAL_TOKENS + (0 if config.data.vocabulary() else config.models.vocabulary)
    head = size.hidden_size // size.num_attention_heads
    layer = size.hidden_size * (
        2 * size.hidden_size + 2 * head * size.num_key_value_heads + 3 * size.intermediate_size
    )
    parameters = float(words * size.hidden_size + size.num_hidden_layers * layer)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    largest = max(names, key=lambda name: getattr(size, name))
    field, value, what = f"models.architecture.{largest}", getattr(size, largest), "its weights"
    if not config.data.vocabulary() and words > value:
        field, value = "models.vocabulary", words - SPECIAL_TOKENS
    yield Demand(field, value, parameters * BYTES_PER_TRAINED_PARAMETER, f"{what} in training")
    yield Demand(field, value, parameters * BYTES_PER_WEIGHT, what, on_disk=True)


def _data(config: Config) -> Iterator[Demand]:
    for name in config.data.generated:
        count = int(getattr(config.data, name))
        yield Demand(f"data.{name}", count, float(count) * BYTES_PER_PROMPT, "the prompts")


def _trainings(config: Config) -> Iterator[Demand]:
    """Yield the size of each training's plan: the order of its rows, which every worker has."""
    workers = config.training.workers
    rows = {"policy": ASSUMED_ROWS, "orm": ASSUMED_ROWS, "reference": ASSUMED_ROWS}
    rows |= {"prm": ASSUMED_ROWS, "implicit": ASSUMED_ROWS}
    if (counts := config.data.row_counts) is not None:
        rows = {**counts, "implicit": counts["orm"] + counts["prm"]}
    for name, count in rows.items():
        settings = getattr(config.training, name)
        field, value, visits = "epochs", settings.epochs, float(settings.epochs) * count
        if settings.max_steps is not None:
            of_a_step = 1 if name == "prm" else min(settings.batch_size, count)
            field, value, visits = (
                "max_steps",
                settings.max_steps,
                settings.max_steps * (of_a_step + PLAN_ROWS_PER_STEP),
            )
        what = "its rows in the training plan"
        yield Demand(f"training.{name}.{field}", value, visits * BYTES_PER_PLAN_ROW * workers, what)
    k, pairs = config.partial.sst_k, 1 if counts is None else counts["prm"]
    if any(v.truncation == "sst" for v in config.variants.values() if v.takes_partial_pairs):
        yield Demand(
            "partial.sst_k",
            k,
            float(k) * pairs * BYTES_PER_NUMBER,
            "the prefix lengths",
            on_disk=True,
        )


def _search(config: Config) -> Iterator[Demand]:
    search, prompts = config.search, config.data.test_prompts
    tokens = config.decoding.max_new_tokens
    candidate = BYTES_PER_CANDIDATE + BYTES_PER_TOKEN * tokens
    at_once = BATCHERS * min(search.max_concurrent, ceil(prompts / BATCHERS))
    for entry in search.entries:
        path, method = entry.path, entry.method
        if not (counts := method.candidate_counts):
            continue
        texts = float(prod(counts.values()))
        answered = method.prompts or prompts
        in_memory = answered if method.shared_samples else min(at_once, answered)
        largest = max(counts, key=lambda field: counts[field])
        what = f"{texts:,.0f} candidates of each of {in_memory} prompts"
        yield Demand(f"{path}.{largest}", counts[largest], texts * in_memory * candidate, what)
    if config.data.samples_pairs:
        each = config.evaluation.pairs_per_prompt
        what = f"{2 * each:,} samples of each of {prompts} prompts"
        field = "evaluation.pairs_per_prompt"
        yield Demand(field, each, 2.0 * each * prompts * candidate, what)


def _evaluation(config: Config) -> Iterator[Demand]:
    samples, columns = config.evaluation.bootstrap_samples, len(config.evaluation.agreement_grid)
    yield Demand(
        "evaluation.bootstrap_samples", samples, float(samples) * (columns + 1) * BYTES_PER_NUMBER,
        "the resampled rates",
    )  # fmt: skip
