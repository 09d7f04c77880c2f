"""Command-line options that define how a reward model scores, and their checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

from jobs.command_line import reward_arguments
from orchestrator.config.load import ConfigError
from orchestrator.fields.yaml_text import BadYaml, read_yaml
from orchestrator.scorers.formats import STRING_FIELDS, StepFormat
from orchestrator.scorers.kind import ScorerKind, kinds_that_use
from orchestrator.scorers.spec import ScorerSpec

ESCAPES = {"\\n": "\n", "\\t": "\t"}
# Fields that decide the scores; of checkpoints, their contents count instead of their paths.
DECIDING = (
    "kind", "option", "beta", "aggregation", "step_delimiter", "step_tag", "score_label",
    "position", "preset", "format", "score_at", "score_token", "fold_system",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScorerOptions:
    """The options of a job that takes a reward model; its `--help` says what they mean."""

    reward: str | None
    kind: reward_arguments.Kind = None
    option: reward_arguments.KindOption = field(default_factory=list)
    base: reward_arguments.Base = None
    beta: reward_arguments.Beta = None
    aggregation: reward_arguments.Aggregation = None
    step_delimiter: reward_arguments.StepDelimiter = None
    step_tag: reward_arguments.StepTag = None
    score_label: reward_arguments.ScoreLabel = None
    position: reward_arguments.Position = "closed"
    preset: reward_arguments.Preset = None
    format: reward_arguments.StepFormat = field(default_factory=list)
    score_at: reward_arguments.ScoreAt = None
    score_token: reward_arguments.ScoreToken = None
    fold_system: reward_arguments.FoldSystem = True
    set_by_user: frozenset[str] = frozenset()  # fields that the command line sets

    def scorer_spec(self, **more: Any) -> ScorerSpec:
        """Return the spec of the scorer; ``more`` are further fields of it.

        Raises:
            ConfigError: fields contradict each other.
        """
        assert self.reward is not None
        step_format, options = parsed_format(self.format), parsed_options(self.option)
        try:
            return ScorerSpec(
                self.reward,
                kind=self.kind,
                aggregation=self.aggregation,
                step_delimiter=_text(self.step_delimiter),
                step_tag=_text(self.step_tag),
                base=self.base,
                beta=1.0 if self.beta is None else self.beta,
                score_label=self.score_label,
                preset=self.preset,
                step_format=step_format,
                score_at=parsed_score_at(self.score_at),
                score_token=self.score_token,
                fold_system=self.fold_system,
                options=options,
                **more,
            )
        except ValueError as error:
            raise ConfigError(f"--reward = {self.reward!r}: {error}") from error

    def check_values(self) -> None:
        """Check the delimiter, the step tag and beta.

        Raises:
            ConfigError: a text is empty, or beta is not positive or has no effect.
        """
        for name in ("step_delimiter", "step_tag"):
            if getattr(self, name) == "":
                raise ConfigError(f"--{name.replace('_', '-')} = '': empty; valid: a nonempty text")
        if self.beta is None:
            return
        if self.base is None:
            raise ConfigError(
                f"--beta = {self.beta}: only a log ratio uses it; valid: together with --base"
            )
        if not isfinite(self.beta) or self.beta <= 0:
            raise ConfigError(f"--beta = {self.beta}: valid: a number over 0")

    def check_step_tag(self, kind: ScorerKind) -> None:
        """Raise ConfigError if a step tag is set for a kind of reward model that has none."""
        if self.step_tag is not None and "step_tag" not in kind.uses:
            raise ConfigError(
                f"--step-tag = {self.step_tag!r}: a reward model of kind {kind.name} has no step"
                f" tag; valid: with a reward model of kind {kinds_that_use('step_tag')}"
            )

    def no_effect_delimiter(self, kind: ScorerKind, ways: str) -> dict[str, str]:
        """Return why the step delimiter has no effect with a kind; empty if it has an effect.

        ``ways`` names the options with which such a reward model scores steps.
        """
        if "step_delimiter" in kind.uses or self.aggregation is not None:
            return {}
        return {
            "step_delimiter": f"a reward model of kind {kind.name} scores steps only with {ways}"
        }


def parsed_options(items: Sequence[str]) -> dict[str, Any]:
    """Return the options of a scorer kind from ``name=value`` items, values in YAML notation.

    Raises:
        ConfigError: an item has another form, or a name occurs twice.
    """
    values: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"--option = {item!r}: valid: name=value")
        if name in values:
            raise ConfigError(f"--option = {item!r}: {name} is given twice; valid: once")
        try:
            values[name] = read_yaml(value, f"--option {name}")
        except BadYaml as error:
            raise ConfigError(str(error)) from error
    return values


def parsed_format(items: Sequence[str]) -> StepFormat | None:
    r"""Return the step format of ``name=value`` items; None if there are no items.

    Texts are not parsed as YAML: ``\n`` is a line end, and ``null`` is None.

    Raises:
        ConfigError: a field does not exist, or fields contradict each other.
    """
    if not items:
        return None
    valid = [field.name for field in fields(StepFormat)]
    values: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or name not in valid:
            raise ConfigError(f"--format = {item!r}: valid: name=value, of {', '.join(valid)}")
        if name in values:
            raise ConfigError(f"--format = {item!r}: {name} is given twice; valid: once")
        if name in STRING_FIELDS:
            values[name] = None if value == "null" else unescaped(value)
        else:
            values[name] = {"true": True, "false": False}.get(value, value)
    try:
        return StepFormat(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--format: {error}") from error


def parsed_score_at(text: str | None) -> str | int | None:
    """Return the text of a token, or an index from the end such as -2."""
    if text is None:
        return None
    return int(text) if text.removeprefix("-").isdecimal() else unescaped(text)


def _text(text: str | None) -> str | None:
    return None if text is None else unescaped(text)


def unescaped(text: str) -> str:
    """Return a text with its backslash escapes replaced, which a shell does not do."""
    for written, meant in ESCAPES.items():
        text = text.replace(written, meant)
    return text
