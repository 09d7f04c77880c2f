"""How families of public reward models read a conversation, and where their score is read.

Fields describe a family, not code: a process reward model reads raw text or its chat template's,
steps with tags behind them or a conversation in which each step is a turn, and is read by a head
or by the tokens with which it answers. Presets name the public families (docs/public_models.md).
"""

from dataclasses import dataclass, replace
from typing import Literal

Activation = Literal["softmax", "sigmoid", "none"]
_CHOICES = {
    "prompt": ("template", "raw"),
    "layout": ("tags", "turns"),
    "activation": ("softmax", "sigmoid", "none"),
}
_OF_LAYOUT = {"tags": ("tag", "delimiter_behind_tag"), "turns": ("question", "answer")}
TEXTS = ("gap", "delimiter", "tag", "question", "answer", "right", "wrong")
_OPTIONAL = ("delimiter", "right", "wrong")


@dataclass(frozen=True)
class StepFormat:
    """The format of a process reward model.

    Attributes:
        prompt: what writes the problem: the chat ``template``, or nothing (``raw``: the BOS token,
            the problem, ``gap``).
        layout: ``tags``: the steps stand in one answer, each with ``tag`` behind it; ``turns``:
            each step is a user's turn, the first one behind the problem and ``gap``, and the
            assistant answers ``answer``.
        gap: text between the problem and the first step, of a raw prompt or of turns.
        delimiter: text that ends a step of a response; None: the whole response is one step.
        tag: text behind a step; the reward is read at its last token.
        delimiter_behind_tag: whether a delimiter of white space stands behind the tag; if not, it
            is left out.
        question: text behind each step within its turn.
        answer: what the assistant answers; the reward is read where that is predicted.
        right: token of a language model that says that a step is right; None where a head is read.
        wrong: token that says that a step is wrong; None: the reward is the probability of
            ``right`` among the whole vocabulary.
        activation: from what is read to the reward: ``softmax`` over two labels or tokens, of which
            the second or ``right`` counts, ``sigmoid`` of a head of one label, or ``none``.
    """

    prompt: Literal["template", "raw"] = "template"
    layout: Literal["tags", "turns"] = "tags"
    gap: str = " "
    delimiter: str | None = "\n\n"
    tag: str = ""
    delimiter_behind_tag: bool = False
    question: str = ""
    answer: str = ""
    right: str | None = None
    wrong: str | None = None
    activation: Activation = "softmax"

    def __post_init__(self) -> None:
        """Raises ValueError for fields that do not go together."""
        self._check_values()
        if self.delimiter == "":
            raise ValueError("delimiter: empty; valid: a text, or null for a single step")
        if self.layout == "tags" and not self.tag:
            raise ValueError("tag: empty; valid: the text behind a step where it is read")
        if self.layout == "turns" and not self.answer:
            raise ValueError("answer: empty; valid: what the assistant answers, such as +")
        other = "turns" if self.layout == "tags" else "tags"
        for name in _OF_LAYOUT[other]:
            if getattr(self, name):
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: not read with layout {self.layout!r};"
                    f" valid: remove {name}, or set layout to {other!r}"
                )
        if self.layout == "turns" and self.prompt == "raw":
            raise ValueError("prompt = 'raw': turns are written by the template; valid: template")
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
                f"activation = {self.activation!r}: the tokens right and wrong are read by softmax;"
                " valid: softmax, or remove right and wrong"
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
        for name in TEXTS:
            value = getattr(self, name)
            if not isinstance(value, str) and not (value is None and name in _OPTIONAL):
                raise ValueError(f"{name} = {value!r}: valid: a text")


@dataclass(frozen=True)
class Preset:
    """A family of public models.

    Attributes:
        kind: of scorer.
        step_format: of kind ``step_tag``.
        score_token: of kind ``sequence``, where a language model's logit of one token is the score.
    """

    kind: Literal["sequence", "step_tag"]
    step_format: StepFormat | None = None
    score_token: int | None = None

    @property
    def format(self) -> StepFormat:
        """The format of a process reward model."""
        assert self.step_format is not None, "a preset of kind step_tag"
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
    """A preset by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset = {name!r}: no such preset; valid: {', '.join(PRESETS)}")
    return PRESETS[name]
