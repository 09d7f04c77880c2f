"""Formats of public reward models: how they read a conversation, and where their score is read.

The prompt is raw text or rendered by the chat template. Each step is followed by a tag, or is a
user turn. The reward comes from a head, or from the tokens of the model's answer. Presets name the
public families (docs/public_models.md).
"""

from dataclasses import dataclass, replace
from typing import Literal

BLANK_LINE = "\n\n"  # the usual delimiter of steps
Activation = Literal["softmax", "sigmoid", "none"]
_CHOICES = {
    "prompt": ("template", "raw"),
    "layout": ("tags", "turns"),
    "activation": ("softmax", "sigmoid", "none"),
}
_LAYOUT_FIELDS = {"tags": ("tag", "delimiter_behind_tag"), "turns": ("question", "answer")}
STRING_FIELDS = ("gap", "delimiter", "tag", "question", "answer", "right", "wrong")
_OPTIONAL = ("delimiter", "right", "wrong")


@dataclass(frozen=True)
class StepFormat:
    """The format of a process reward model.

    Attributes:
        prompt: how the problem is written: by the chat ``template``, or ``raw`` (the BOS token, the
            problem and ``gap``).
        layout: ``tags``: the steps are one answer, each followed by ``tag``; ``turns``: each step
            is a user's turn, the first one after the problem and ``gap``, and the assistant answers
            ``answer``.
        gap: separator between the problem and the solution, of a raw prompt or of turns.
        delimiter: text that ends a step of a response; None: the response is one step.
        tag: text after a step; the reward is read at its last token.
        delimiter_behind_tag: whether a delimiter of white space is moved after the tag; if not, it
            is removed.
        question: suffix after each step within its turn.
        answer: the assistant's answer; the reward is read where it is predicted.
        right: token of a language model's positive verdict on a step; None if a head is read.
        wrong: token of a negative verdict; None: the reward is the probability of ``right`` in the
            full vocabulary.
        activation: how the reward is computed: ``softmax`` over two labels or tokens, or over the
            full vocabulary if ``wrong`` is None (the probability of the second label, or of
            ``right``); ``sigmoid`` of a head of one label; or ``none``.
    """

    prompt: Literal["template", "raw"] = "template"
    layout: Literal["tags", "turns"] = "tags"
    gap: str = " "
    delimiter: str | None = BLANK_LINE
    tag: str = ""
    delimiter_behind_tag: bool = False
    question: str = ""
    answer: str = ""
    right: str | None = None
    wrong: str | None = None
    activation: Activation = "softmax"

    def __post_init__(self) -> None:
        """Raise ValueError if fields contradict each other."""
        self._check_values()
        if self.delimiter == "":
            raise ValueError("delimiter: empty; valid: a nonempty text, or null for a single step")
        if self.layout == "tags" and not self.tag:
            raise ValueError("tag: empty; valid: the text after a step at which its reward is read")
        if self.layout == "turns" and not self.answer:
            raise ValueError("answer: empty; valid: the answer of the assistant's turn, such as +")
        other = "turns" if self.layout == "tags" else "tags"
        for name in _LAYOUT_FIELDS[other]:
            if getattr(self, name):
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: not read with layout {self.layout!r};"
                    f" valid: remove {name}, or set layout to {other!r}"
                )
        if self.layout == "turns" and self.prompt == "raw":
            raise ValueError("prompt = 'raw': layout 'turns' needs the template; valid: template")
        if self.wrong is not None and self.right is None:
            raise ValueError(
                f"wrong = {self.wrong!r}: set without right; valid: set right as well, or remove"
                " wrong"
            )
        if self.right is not None and self.right == self.wrong:
            raise ValueError(
                f"wrong = {self.wrong!r}: the same as right; valid: another token, or null"
            )
        if self.right is not None and self.activation != "softmax":
            raise ValueError(
                f"activation = {self.activation!r}: the tokens right and wrong need softmax; valid:"
                " softmax, or remove right and wrong"
            )

    def _check_values(self) -> None:
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: no such value; valid: {', '.join(valid)}"
                )
        if not isinstance(self.delimiter_behind_tag, bool):
            raise ValueError(
                f"delimiter_behind_tag = {self.delimiter_behind_tag!r}: valid: true, false"
            )
        for name in STRING_FIELDS:
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name in _OPTIONAL):
                valid_text = "a text, or null" if name in _OPTIONAL else "a text"
                raise ValueError(f"{name} = {value!r}: valid: {valid_text}")


@dataclass(frozen=True)
class Preset:
    """A family of public models.

    Attributes:
        kind: name of the scorer kind.
        step_format: the format of a process reward model; None for other kinds than step_tag.
        score_token: id of the token whose logit in a language model is the score.
    """

    kind: Literal["sequence", "step_tag"]
    step_format: StepFormat | None = None
    score_token: int | None = None

    @property
    def format(self) -> StepFormat:
        """``step_format`` of a preset that has one."""
        assert self.step_format is not None, "preset has no step format (its kind is not step_tag)"
        return self.step_format


_TURNS = StepFormat(layout="turns", answer="+", right="+", wrong="-")
PRESETS: dict[str, Preset] = {
    "math-shepherd": Preset(
        "step_tag",
        StepFormat(
            "raw", delimiter="\n", tag=" ки", delimiter_behind_tag=True, right="+", wrong="-"
        ),
    ),
    "qwen2.5-math-prm": Preset("step_tag", StepFormat(tag="<extra_0>")),
    "trl-prm": Preset("step_tag", StepFormat(delimiter="\n", tag="\n")),
    "skywork-o1-prm": Preset(
        "step_tag", StepFormat("raw", gap="\n", delimiter="\n", tag="\n", activation="sigmoid")
    ),
    "rlhflow-prm": Preset("step_tag", _TURNS),
    "rlhflow-orm": Preset("step_tag", replace(_TURNS, delimiter=None)),
    "granite-math-prm": Preset(
        "step_tag",
        StepFormat(
            layout="turns",
            question=" Is this response correct so far (Y/N)?",
            answer="Y",
            right="Y",
        ),
    ),
    "qwen2.5-math-rm": Preset("sequence"),
    "inf-orm": Preset("sequence"),
    "nemotron-reward": Preset("sequence", score_token=0),
}


def preset_of(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ValueError: no preset has the name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset = {name!r}: no such preset; valid: {', '.join(PRESETS)}")
    return PRESETS[name]
