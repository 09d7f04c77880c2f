"""Which model scores, and how, as plain values; importing this loads no library that computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.choices import BRANCH_MEMORY_MIB, Aggregation, Engine, FinishedPosition
from orchestrator.scorers.formats import StepFormat, preset_of
from orchestrator.scorers.kind import SCORER_KINDS, kinds_that_use, make_kind

if TYPE_CHECKING:
    from orchestrator.conversations.end_tokens import ScoreAt


@dataclass(frozen=True)
class ScorerSpec:
    """A reward model and how it scores, as plain values that can be sent to any actor.

    Attributes:
        checkpoint: folder or hub name.
        kind: name of the scorer kind; None detects it from the checkpoint's files.
        aggregation: how step rewards become a prefix's score; None is the kind's default.
        step_delimiter: text that ends a step of a response; None is the kind's default.
        step_tag: text after a step at which its reward is read; None is the format's tag.
        base: folder or hub name of the base model of a log ratio.
        beta: factor of a log ratio.
        branch_memory_mib: memory limit for the branches of one pass beside their trunks (MiB).
        engine: what computes the scores.
        score_label: index of the label that is the score, of a head of several labels.
        preset: family of public models that the checkpoint belongs to (`formats.py`). It sets
            kind, step format and score token if they are not set.
        step_format: how a process reward model reads steps; None detects it from the checkpoint.
        score_token: id of the token whose logit after the finished conversation is the score, of a
            language model.
        finished_position: where search scores a finished response. ``template``: after the
            template's closing suffix. ``position``: at the same position as an unfinished prefix.
        score_at: the token of the template's closing at which the model scores, as text or as a
            negative index from the end of the rendering; None is the last one.
        fold_system: whether a system message that the model's template does not write is put into
            the first user message.
        options: fields of the kind's own class, by name.
    """

    checkpoint: str
    kind: str | None = None
    aggregation: Aggregation | None = None
    step_delimiter: str | None = None
    step_tag: str | None = None
    base: str | None = None
    beta: float = 1.0
    branch_memory_mib: int = BRANCH_MEMORY_MIB
    engine: Engine = "transformers"
    score_label: int | None = None
    preset: str | None = None
    step_format: StepFormat | None = None
    score_token: int | None = None
    finished_position: FinishedPosition = "template"
    score_at: "ScoreAt | None" = None
    fold_system: bool = True
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check the fields and set those that the preset decides.

        Raises:
            ValueError: there is no such preset or kind, fields contradict each other, or an option
                is not valid.
        """
        if isinstance(self.score_at, bool) or not isinstance(self.score_at, str | int | None):
            raise ValueError(f"score_at = {self.score_at!r}: valid: a text or a whole number")
        if self.preset is not None:
            self._fill(self.preset)
        if self.kind is not None:
            make_kind(self.kind, self.options)
        if self.score_token is None:
            return
        if self.kind is not None and "score_token" not in SCORER_KINDS[self.kind].uses:
            raise ValueError(
                f"kind = {self.kind!r}: score_token is also set, and only kind"
                f" {kinds_that_use('score_token')} uses it; valid: set one of them"
            )
        if self.step_format is not None:
            raise ValueError(
                "format: no effect with score_token, which scores finished responses; valid: set"
                " one"
                " of them"
            )

    def _fill(self, name: str) -> None:
        preset = preset_of(name)
        fields = {
            "kind": preset.kind,
            "format": preset.step_format,
            "score_token": preset.score_token,
        }
        for field_name, value in fields.items():
            attribute = "step_format" if field_name == "format" else field_name
            current = getattr(self, attribute)
            if current is None:
                object.__setattr__(self, attribute, value)
            elif current != value:
                shown = "" if field_name == "format" else f" = {current!r}"
                why = (
                    f"is of kind {value!r}"
                    if field_name == "kind"
                    else f"sets another {field_name}"
                )
                why = f"has no {field_name}" if value is None else why
                raise ValueError(
                    f"{field_name}{shown}: preset {name!r} {why}; valid: set one of them"
                )
        step_format = preset.step_format
        if (
            step_format is not None
            and step_format.delimiter is None
            and self.step_delimiter is not None
        ):
            raise ValueError(
                f"step_delimiter = {self.step_delimiter!r}: preset {name!r} reads a response as one"
                " step; valid: remove it"
            )
