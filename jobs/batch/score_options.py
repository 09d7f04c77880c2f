"""The options of jobs/score.py, checked before anything starts, and which decide the scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.batch.file_job import check_rows_file, readable
from jobs.batch.scorer_options import DECIDING as OF_SCORER
from jobs.batch.scorer_options import ScorerOptions
from orchestrator.choices import Engine, ScorerKind
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import Chat
from orchestrator.data.files import columns_found, found_in
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.row_forms import form_of
from orchestrator.data.rows import SUFFIXES, VALID, file_stem, read_rows
from orchestrator.decoding.checks import check_seed
from orchestrator.records import Reject
from orchestrator.scorers.checkpoint_checks import check_scorer
from orchestrator.scorers.registry import chat_of
from orchestrator.scorers.row_reader import RowKind, RowReader
from orchestrator.scorers.scored_token import scored_token
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.steps import BLANK_LINE, check_delimiter
from orchestrator.scorers.token_classify import check_open
from orchestrator.scorers.vllm_scorer import check_model
from orchestrator.stages.identity import fingerprint

if TYPE_CHECKING:
    from jobs.batch.decode_options import DecodeOptions

# Each option that decides the scores, by the name of its field.
DECIDING = ("prefixes", "seed", "base", "part_rows", *OF_SCORER)


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScorerOptions):
    """The options of jobs/score.py; its `--help` says what they mean."""

    input: str
    output: str
    reward: str
    prefixes: str
    branch_memory_mib: int
    engine: Engine
    seed: int
    actors: int
    threads: int
    batch_size: int
    part_rows: int
    device: str
    force: bool

    @property
    def spec(self) -> ScorerSpec:
        """The scorer."""
        return self.scorer_spec(branch_memory_mib=self.branch_memory_mib, engine=self.engine)

    def resolved(self) -> "ScoreOptions":
        """With absolute paths: tasks and actors work in other folders."""
        base = None if self.base is None else absolute(self.base)
        return replace(self, input=absolute(self.input), reward=absolute(self.reward), base=base)

    def identity(self) -> dict[str, Any]:
        """What decides the scores, by option: contents of files, values of all others.

        How many actors, threads and rows at once it takes changes their rounding and nothing else.
        """
        files = {"--input": fingerprint(self.input), "--reward": fingerprint(self.reward)}
        values = {option(name): getattr(self, name) for name in DECIDING}
        if self.base is not None:
            values["--base"] = fingerprint(self.base)
        return {**files, **values, "scored_token": scored_token(self.spec, self.position)}

    def reader(self) -> RowReader:
        """Checks all of them, and says how rows are read; loads no weights.

        Raises:
            ConfigError: an option cannot be; the message names it, its value and what is valid.
        """
        rows = _row_kind(self.input)
        check_checkpoint("--reward", self.reward)
        if self.base is not None:
            check_checkpoint("--base", self.base)
        try:
            prefixes = Prefixes.parse(self.prefixes)
        except ValueError as error:
            raise ConfigError(f"--prefixes = {error}") from None
        self._check_scorer(prefixes)
        check_seed(option, self.seed)
        stem = file_stem(self.input)
        return RowReader(self.spec, self.position, rows, prefixes, self.seed, stem)

    def _check_scorer(self, prefixes: Prefixes) -> None:
        self.check_values()
        spec = self.spec
        try:
            kind, chat = check_scorer(spec), chat_of(spec)
            if prefixes.kind == "steps" and kind != "step_tag":
                check_delimiter(chat, spec.step_delimiter or BLANK_LINE)
        except (ValueError, OSError) as error:
            raise ConfigError(f"--reward = {self.reward!r}: {error}") from error
        if self.engine == "vllm":
            self._check_vllm(kind, chat)
        refuse_unread(self, self._unread(prefixes, kind))
        self.check_step_tag(kind)

    def _unread(self, prefixes: Prefixes, kind: ScorerKind) -> dict[str, str]:
        """The options that nothing reads under the others, each with the reason."""
        reasons = {}
        if prefixes.kind != "sst":
            reasons["seed"] = f"--prefixes {self.prefixes} draws nothing"
        if kind in ("step_tag", "log_ratio"):
            reasons["position"] = f"a scorer of kind {kind} is read the same in both positions"
        if prefixes.kind != "steps":
            reasons |= self.unread_delimiter(kind, "--aggregation or --prefixes steps")
        if kind != "step_tag" and (kind != "sequence" or self.position == "open"):
            reasons["branch_memory_mib"] = (
                f"{self.position} scores of kind {kind} have no closing suffixes in a pass"
            )
        return reasons

    def _check_vllm(self, kind: ScorerKind, chat: Chat) -> None:
        if kind != "sequence":
            raise ConfigError(
                f"--engine = 'vllm': the reward model is of kind {kind}; valid: transformers, or"
                " one of kind sequence"
            )
        try:
            check_open(self.reward, chat, self.position)
            check_model(self.reward)
        except (ValueError, ModuleNotFoundError) as error:
            raise ConfigError(f"--engine = 'vllm': {error}") from error


def option(name: str) -> str:
    """A field's name as it stands on the command line."""
    return f"--{name.replace('_', '-')}"


def refuse_unread(options: "ScoreOptions | DecodeOptions", unread: Mapping[str, str]) -> None:
    """Checks that no option is given that nothing reads.

    Args:
        options: the values, and which of them the command line names.
        unread: fields that nothing reads under the other options, each with the reason.

    Raises:
        ConfigError: one of them is given.
    """
    for name, reason in unread.items():
        if name in options.named:
            raise ConfigError(
                f"{option(name)} = {getattr(options, name)!r}: it has no effect: {reason};"
                f" valid: without {option(name)}"
            )


def _row_kind(source: str) -> RowKind:
    """What the rows of a file hold.

    Raises:
        ConfigError: there is no such file, it is damaged, or it holds nothing to score.
    """
    check_rows_file("--input", source, SUFFIXES, VALID)
    with readable("--input", source):
        if source.endswith(".parquet"):
            found = form_of(dict.fromkeys(columns_found(source), True))
        else:
            kinds = (None if isinstance(i, Reject) else form_of(i[1]) for i in read_rows(source))
            found = next(filter(None, kinds), None)
        if found is None:
            raise ConfigError(
                f"--input = {source!r}: nothing to score; {found_in(source)}; valid: rows with"
                " `prompt` and `response`, or with `prompt`, `chosen` and `rejected`, or in another"
                " form of docs/data.md"
            )
    return found


def absolute(path: str) -> str:
    """A path that is on this disk; a hub name or URI stays as it is."""
    place = Path(path).expanduser()
    return str(place.resolve()) if place.exists() else path
