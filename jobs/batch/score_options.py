"""Adds the checks that need torch to ScoreArguments, the options of jobs/score.py."""

from dataclasses import dataclass

from jobs.batch.file_job import bad_file_as_config_error, check_rows_file
from jobs.batch.options import Identity, option
from jobs.batch.score_arguments import ScoreArguments
from orchestrator.config.errors import ConfigError, reason_about
from orchestrator.conversations.chat import Chat
from orchestrator.data.files import column_names, describe_columns
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.row_forms import RowForm, form_of
from orchestrator.data.rows import SUFFIXES, VALID, file_stem, read_rows
from orchestrator.decoding.checks import check_seed
from orchestrator.records import Reject
from orchestrator.scorers.checkpoint_checks import check_scorer
from orchestrator.scorers.kind import ScorerKind, kinds_in_order
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.scored_token import scored_token
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.steps import check_delimiter
from orchestrator.scorers.token_classify import check_open_position
from orchestrator.stages.identity import fingerprint


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ScoreArguments):
    """Adds the checks that need torch to ScoreArguments."""

    @property
    def spec(self) -> ScorerSpec:
        """The scorer."""
        return self.scorer_spec(branch_memory_mib=self.branch_memory_mib, engine=self.engine)

    def identity(self) -> Identity:
        """Return the values that determine the scores, keyed by option.

        Files and models are fingerprints.

        The number of actors, threads and rows in a batch changes rounding and nothing else.
        """
        identity = self.deciding_values()
        for name in self.PATHS:
            value = getattr(self, name)
            identity[option(name)] = None if value is None else fingerprint(value)
        return {**identity, "scored_token": scored_token(self.spec, self.position)}

    def row_reader(self) -> RowReader:
        """Check all options and return the reader of rows; loads no weights.

        Raises:
            ConfigError: an option is not valid; the message names it, its value and valid values.
        """
        form = _row_form(self.input)
        self.check_checkpoints("reward", "base")
        prefixes = self.parsed_prefixes()
        self._check_scorer(prefixes)
        check_seed(option, self.seed)
        stem = file_stem(self.input)
        return RowReader(self.spec, self.position, form, prefixes, self.seed, stem)

    def _check_scorer(self, prefixes: Prefixes) -> None:
        self.check_values()
        spec = self.spec
        try:
            kind = check_scorer(spec)
            chat = kind.chat(spec)
            delimiter = kind.step_layout(spec, chat).delimiter
            if prefixes.kind == "steps" and delimiter is not None:
                check_delimiter(chat, delimiter)
        except (ValueError, OSError) as error:
            reason = reason_about(self.reward, error)
            raise ConfigError(f"--reward = {self.reward!r}: {reason}") from error
        if self.engine == "vllm":
            self._check_vllm(kind, chat)
        self.check_effects(self._without_effect(prefixes, kind))
        self.check_step_tag(kind)

    def _without_effect(self, prefixes: Prefixes, kind: ScorerKind) -> dict[str, str]:
        """Return the options that have no effect with the others, each with the reason."""
        reasons = {}
        if prefixes.kind != "sst":
            reasons["seed"] = f"--prefixes {self.prefixes} draws no random numbers"
        if not kind.position_matters:
            reasons["position"] = f"a scorer of kind {kind.name} scores the same in both positions"
        if prefixes.kind != "steps":
            reasons |= self.no_effect_delimiter(kind, "--aggregation or --prefixes steps")
        if self.position not in kind.branch_positions:
            reasons["branch_memory_mib"] = (
                f"{self.position} scores of kind {kind.name} are computed without branches"
            )
        return reasons

    def _check_vllm(self, kind: ScorerKind, chat: Chat) -> None:
        if "vllm" not in kind.engines:
            kinds = " or ".join(n for n, k in kinds_in_order().items() if "vllm" in k.engines)
            raise ConfigError(
                f"--engine = 'vllm': the reward model is of kind {kind.name}; valid: transformers,"
                f" or a reward model of kind {kinds}"
            )
        try:
            check_open_position(self.reward, chat, self.position)
        except ValueError as error:
            reason = reason_about(self.reward, error)
            raise ConfigError(f"--position = {self.position!r}: {reason}") from error
        try:
            kind.check_vllm(self.spec)
        except (ValueError, ModuleNotFoundError) as error:
            raise ConfigError(f"--engine = 'vllm': {error}") from error


def _row_form(source: str) -> RowForm:
    """Return the form of the rows of a file.

    Raises:
        ConfigError: the file does not exist, is damaged, or has nothing to score.
    """
    check_rows_file("--input", source, SUFFIXES, VALID)
    with bad_file_as_config_error("--input", source):
        if source.endswith(".parquet"):
            form = form_of(dict.fromkeys(column_names(source), True))
        else:
            forms = (None if isinstance(i, Reject) else form_of(i[1]) for i in read_rows(source))
            form = next(filter(None, forms), None)
        if form is None:
            raise ConfigError(
                f"--input = {source!r}: nothing to score; {describe_columns(source)}; valid: rows"
                " with `prompt` and `response`, or with `prompt`, `chosen` and `rejected`, or in"
                " another form of docs/data.md"
            )
    return form
