"""The command line of jobs/decode.py, with checks that import no torch, Ray or transformers."""

from dataclasses import dataclass, field
from typing import Annotated as An
from typing import ClassVar

from typer import Argument
from typer import Option as Opt

from jobs.batch.options import FileJobOptions, option
from jobs.batch.scorer_options import DECIDING as OF_SCORER
from jobs.command_line import reward_arguments
from orchestrator.choices import Dtype, EngineChoice, FinishedPosition
from orchestrator.config.engine_choice import vllm_unsupported_reason
from orchestrator.config.errors import ConfigError
from orchestrator.config.output_paths import check_file
from orchestrator.data.rows import SUFFIXES, VALID
from orchestrator.decoding.checks import check_sampling, check_seed
from orchestrator.decoding.methods import (
    method_of,
    needs_scorer,
    parsed,
    unscored_methods,
)

LINES = ".txt"  # one prompt per line


@dataclass(frozen=True, kw_only=True)
class DecodeArguments(FileJobOptions):
    """The options of jobs/decode.py."""

    PATHS: ClassVar[tuple[str, ...]] = ("policy", "prompts", "reward", "base")
    DECIDING: ClassVar[tuple[str, ...]] = (
        "method", "max_new_tokens", "temperature", "top_p", "seed", "dtype", "finished",
        *OF_SCORER,
    )  # fmt: skip

    policy: An[str, Opt(help="checkpoint folder or hub name of the policy")]
    method: An[str, Opt(help="the search method")]
    prompts: An[str, Opt(help="file of prompts: .jsonl, .jsonl.gz, .parquet, .txt")]
    out: An[str, Opt(help="output folder, or .parquet or .jsonl file")]
    fields: An[list[str], Argument(help="fields of the method: beams=4 chunk=16")] = field(
        default_factory=list
    )
    reward: An[str | None, Opt(help="checkpoint folder or hub name of the reward model")] = None
    finished: An[
        FinishedPosition,
        Opt(
            help="where a finished response is scored: template: after the closing tokens;"
            " position: as --position says"
        ),
    ] = "template"
    max_new_tokens: An[int, Opt(min=1, help="maximum number of tokens in a response")] = 256
    temperature: An[float, Opt(help="sampling temperature of the policy")] = 1.0
    top_p: An[float, Opt(help="nucleus sampling: probability mass that is kept")] = 1.0
    seed: An[int, Opt(help="seed of all random numbers")] = 0
    max_actors: An[
        int | None,
        Opt(min=1, help="start further actors while prompts wait, up to this number"),
    ] = None
    policy_cache_mib: An[int | None, Opt(min=1, help="KV cache of each policy, in MiB")] = None
    reward_cache_mib: An[int | None, Opt(min=1, help="KV cache of each reward model, in MiB")] = (
        None
    )
    max_concurrent: An[int, Opt(min=1, help="prompts that an actor searches at once")] = 32
    dtype: An[Dtype, Opt(help="dtype of the weights")] = "float32"
    engine: An[EngineChoice, Opt(help="auto: transformers, faster in the CPU benchmarks")] = "auto"

    @property
    def threads_per_actor(self) -> int:
        """Torch threads of each actor; by default the cores are divided among all actors."""
        processes = max(self.actors, self.max_actors or 1)
        return self.threads or max(reward_arguments.CORES // processes, 1)

    def check_early(self) -> None:
        """Check what needs neither torch nor a look into a checkpoint.

        Raises:
            ConfigError: an option is not valid.
        """
        search = method_of(self.method, parsed(self.fields))
        if self.engine == "vllm" and (reason := vllm_unsupported_reason(self.method)):
            raise ConfigError(f"--engine = 'vllm': {reason}; valid: transformers")
        check_sampling(option, self.temperature, self.top_p)
        check_seed(option, self.seed)
        check_file("--prompts", self.prompts, (*SUFFIXES, LINES), f"{VALID}, or {LINES}")
        if search.needs_scorer:
            self.check_has_reward()
        self.check_checkpoints("policy", "reward", "base")

    def check_has_reward(self) -> None:
        """Check that a method that needs scores has a reward model.

        Raises:
            ConfigError: it has none.
        """
        if self.reward is None and needs_scorer(self.method):
            raise ConfigError(
                f"--reward: missing; --method {self.method} needs scores; valid: a reward model,"
                f" or --method {' or '.join(unscored_methods())}"
            )
