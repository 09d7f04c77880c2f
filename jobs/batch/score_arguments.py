"""The command line of jobs/score.py, with checks that import no torch, Ray or transformers."""

from dataclasses import dataclass
from typing import Annotated as An
from typing import ClassVar

from typer import Option as Opt

from jobs.batch.options import FileJobOptions, option
from jobs.batch.scorer_options import DECIDING as OF_SCORER
from jobs.command_line.reward_arguments import CORES
from orchestrator.choices import Engine
from orchestrator.config.errors import ConfigError
from orchestrator.config.output_paths import check_file
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.rows import SUFFIXES, VALID
from orchestrator.decoding.checks import check_seed


@dataclass(frozen=True, kw_only=True)
class ScoreArguments(FileJobOptions):
    """The options of jobs/score.py."""

    PATHS: ClassVar[tuple[str, ...]] = ("input", "reward", "base")
    DECIDING: ClassVar[tuple[str, ...]] = ("prefixes", "seed", "shard_rows", *OF_SCORER)

    input: An[str, Opt(help="file or URI: .jsonl, .json (also .gz) or .parquet")]
    output: An[str, Opt(help="output folder, or .parquet file")]
    reward: An[str, Opt(help="checkpoint folder or hub name of the reward model")]
    prefixes: An[
        str, Opt(help="prefixes to score: whole, tlt, sst[:K], steps, every:N, or lengths t1,t2")
    ] = "whole"
    branch_memory_mib: An[
        int, Opt(min=1, help="memory limit of the prefixes in a pass, in MiB")
    ] = 256
    engine: An[
        Engine, Opt(help="vllm needs --position open and a reward model of kind sequence")
    ] = "transformers"
    seed: An[int, Opt(help="seed of the prefix lengths that sst draws")] = 0
    actors: An[int, Opt(min=1, help="scoring processes, each with the model")] = min(CORES, 2)
    batch_size: An[int, Opt(min=1, help="number of responses in a batch")] = 32

    def check_early(self) -> None:
        """Check the options without torch; of checkpoints, only that their files exist.

        Raises:
            ConfigError: an option is not valid.
        """
        check_file("--input", self.input, SUFFIXES, VALID)
        self.check_checkpoints("reward", "base")
        self.parsed_prefixes()
        check_seed(option, self.seed)

    def parsed_prefixes(self) -> Prefixes:
        """Return the prefixes to score.

        Raises:
            ConfigError: the option is not valid.
        """
        try:
            return Prefixes.parse(self.prefixes)
        except ValueError as error:
            raise ConfigError(f"--prefixes = {error}") from None
