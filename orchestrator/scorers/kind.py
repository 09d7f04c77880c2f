"""The base class of scorer kinds, and their registry.

A kind defines which checkpoints it scores, which fields of a `ScorerSpec` it reads, and how its
scorer is loaded. Configs and command lines list the kinds, so that importing this module, or a
module that defines a kind, loads neither torch nor transformers: methods import what they need.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import ValidationError

from orchestrator.choices import Dtype, Engine, Position
from orchestrator.fields.section import Section
from orchestrator.registry import PluginError, Registry
from orchestrator.scorers.formats import BLANK_LINE

if TYPE_CHECKING:
    from orchestrator.conversations.chat import Chat
    from orchestrator.scorers.detect import CheckpointInfo, HeadType
    from orchestrator.scorers.scorer import Scorer
    from orchestrator.scorers.spec import ScorerSpec

# Fields of ScorerSpec that only some kinds read.
OPTIONAL_FIELDS = frozenset(
    ["step_delimiter", "step_tag", "step_format", "base", "beta", "score_label", "score_token",
     "score_at"]
)  # fmt: skip


@dataclass(frozen=True)
class LoadOptions:
    """How a scorer is loaded: device, weights, memory, and the requests that it will get.

    Attributes:
        position: where a prefix is scored.
        policy_chat: tokenizer of the prefix and extension ids in requests; None is the model's.
        device: torch device name.
        dtype: dtype of the weights.
        full_responses: whether it scores prefixes of responses that are known in full, as those of
            a file.
        cache_mib: memory for cached keys and values (MiB); None is the engine's default.
    """

    position: Position = "closed"
    policy_chat: "Chat | None" = None
    device: str = "cpu"
    dtype: Dtype = "float32"
    full_responses: bool = False
    cache_mib: int | None = None


@dataclass(frozen=True)
class StepLayout:
    """How a scorer reads the steps of a response.

    Attributes:
        delimiter: text that ends a step; None: the response is one step.
        written_ids: tokens written after each step.
    """

    delimiter: str | None
    written_ids: tuple[int, ...] = ()


class ScorerKind(Section):
    """A kind of scorer; a subclass sets ``name`` and ``summary`` and defines ``load``.

    The fields of a subclass are its options: ``variants.NAME.options`` of a config,
    ``ScorerSpec.options`` in Python. Class variables are traits; other modules depend on traits,
    never on names of kinds.

    Attributes:
        name: its name in configs and on command lines.
        summary: what it scores with, as a noun phrase for the documentation.
        order: rank among the kinds, ascending; equal ranks are sorted by name. The first kind that
            recognizes a checkpoint scores it.
        head_types: head types of the checkpoints that it can score.
        recognized_head_types: those of ``head_types`` that are of this kind if the config names no
            kind.
        uses: which of ``OPTIONAL_FIELDS`` it uses; others are refused. A ``step_delimiter``
            that counts only with an aggregation is not listed.
        engines: engines that compute it.
        dtypes: dtypes of the weights that it supports on transformers.
        needs_base: whether it compares the model with the base model of the spec.
        aggregates_steps: whether it applies ``aggregation`` itself, to rewards of its steps. For
            other kinds the scores at step ends are aggregated.
        position_matters: whether closed and open scores differ.
        branch_positions: positions for which one pass has branches, which take memory.
        keeps_cache: whether it keeps keys and values between requests.
        is_trainable: whether Bradley-Terry training can start from such a checkpoint.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    order: ClassVar[int] = 100
    head_types: ClassVar[tuple["HeadType", ...]] = ()
    recognized_head_types: ClassVar[tuple["HeadType", ...]] = ()
    uses: ClassVar[frozenset[str]] = frozenset()
    engines: ClassVar[tuple[Engine, ...]] = ("transformers",)
    dtypes: ClassVar[tuple[Dtype, ...]] = ("float32",)
    needs_base: ClassVar[bool] = False
    aggregates_steps: ClassVar[bool] = False
    position_matters: ClassVar[bool] = True
    branch_positions: ClassVar[tuple[Position, ...]] = ()
    keeps_cache: ClassVar[bool] = False
    is_trainable: ClassVar[bool] = False

    @classmethod
    def is_implied(cls, spec: "ScorerSpec") -> bool:
        """Return whether the fields of a spec without ``kind`` imply this kind."""
        return False

    @classmethod
    def fits(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        """Return whether this kind can score a checkpoint; ``info`` describes it."""
        return info.head_type in cls.head_types

    @classmethod
    def recognizes(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> bool:
        """Return whether a checkpoint that fits is of this kind if the config names no kind."""
        return info.head_type in cls.recognized_head_types

    @classmethod
    def check_spec(cls, spec: "ScorerSpec", info: "CheckpointInfo") -> None:
        """Check that the fields of a spec and the checkpoint's files agree.

        Raises:
            ValueError: they do not.
        """

    def check(self, spec: "ScorerSpec") -> None:
        """Check that a checkpoint of this kind can be loaded and reads texts; loads no weights.

        Raises:
            ValueError: a file is damaged or does not fit the others.
        """
        from orchestrator.scorers.checkpoint_checks import check_conversations

        self.check_weights(spec)
        chat = self.chat(spec)
        written = self.step_layout(spec, chat).written_ids
        check_conversations(spec.checkpoint, chat, chat.reward_prompt_ids, written)

    def check_weights(self, spec: "ScorerSpec") -> None:
        """Check the headers of the checkpoint's weights: those of a language model by default.

        Raises:
            ValueError: weights are missing or have other shapes than the model's.
        """
        from orchestrator.checkpoints.checkpoint import check_policy_weights

        check_policy_weights(spec.checkpoint)

    def check_vllm(self, spec: "ScorerSpec") -> None:
        """Check that vLLM serves the checkpoint; only for kinds with this engine.

        Raises:
            ValueError: it does not.
            ModuleNotFoundError: vLLM is not installed.
        """
        from orchestrator.engines.vllm.process import check_served

        check_served(spec.checkpoint)

    def needs_template(self, spec: "ScorerSpec") -> bool:
        """Return whether the tokenizer must have a chat template."""
        return True

    def chat(self, spec: "ScorerSpec") -> "Chat":
        """Return the tokenizer and the prompt format, without loading the model."""
        from orchestrator.conversations.chat import load_chat

        return load_chat(spec.checkpoint, spec.fold_system, spec.score_at)

    def step_layout(self, spec: "ScorerSpec", chat: "Chat") -> StepLayout:
        """Return how it reads the steps of a response; ``chat`` is that of ``chat``."""
        return StepLayout(spec.step_delimiter or BLANK_LINE)

    def scored_token(self, spec: "ScorerSpec", chat: "Chat", position: Position) -> str:
        """Describe the tokens (text and id) at which prefixes and finished responses are scored."""
        from orchestrator.scorers.scored_token import shown_token

        content = "the last token of the response"
        closed = shown_token(chat, chat.closing_ids[-1]) if chat.closing_ids else content
        if position == "closed" or spec.finished_position == "position":
            return closed if position == "closed" else content
        return f"{content}; of a finished one {closed}"

    def reads_logits(self, spec: "ScorerSpec") -> bool:
        """Return whether scores are read from a language-model head, which counts in N then."""
        return False

    def parameters(self, spec: "ScorerSpec") -> float:
        """Return N, so that 2N is the number of FLOPs of a reward token; loads no weights."""
        from orchestrator.checkpoints.parameters import matrix_parameters

        logits = self.reads_logits(spec)
        return float(matrix_parameters(spec.checkpoint, language_head=logits))

    def load(self, spec: "ScorerSpec", load_options: LoadOptions) -> "Scorer":
        """Load the scorer. It scores prefixes; ``aggregation`` is its task only as stated above.

        Raises:
            ValueError: the checkpoint does not fit, or the engine does not compute it.
            ModuleNotFoundError: the engine is not installed.
        """
        raise NotImplementedError


KindT = TypeVar("KindT", bound=type[ScorerKind])
SCORER_KINDS: Registry[type[ScorerKind]] = Registry(
    "scorer kind", "orchestrator.scorers.kinds", "prm_orchestrator.scorers"
)


def register(kind: KindT) -> KindT:
    """Register a scorer kind under its name.

    Raises:
        PluginError: another kind has the name, or the kind uses a field that a spec does not have.
    """
    if unknown := sorted(kind.uses - OPTIONAL_FIELDS):
        raise PluginError(
            f"scorer kind {kind.name!r}: uses {unknown[0]!r}, which is no optional field of a"
            f" ScorerSpec; valid: {', '.join(sorted(OPTIONAL_FIELDS))}"
        )
    SCORER_KINDS.add(kind.name, kind)
    return kind


def kinds_in_order() -> dict[str, type[ScorerKind]]:
    """Return all scorer kinds by name, in the order in which checkpoints are matched."""
    return dict(sorted(SCORER_KINDS.items(), key=lambda item: (item[1].order, item[0])))


def kinds_that_use(field: str) -> str:
    """Return the names of the kinds that use a field of a spec, for a message."""
    return " or ".join(n for n, kind in kinds_in_order().items() if field in kind.uses)


def check_kind(name: object) -> str:
    """Return a name if a scorer kind has it.

    Raises:
        ValueError: no kind has it; the message lists the kinds.
    """
    if not isinstance(name, str) or name not in SCORER_KINDS:
        raise ValueError(f"no such kind of scorer; valid: {', '.join(kinds_in_order())}")
    return name


def check_option_names(name: str, options: Iterable[str]) -> None:
    """Check that a scorer kind has all options of these names.

    Raises:
        ValueError: it does not have one of them.
    """
    fields = SCORER_KINDS[name].model_fields
    if unknown := [option for option in options if option not in fields]:
        valid = ", ".join(fields) or "none"
        raise ValueError(f"kind {name!r} has no option {unknown[0]!r}; valid: {valid}")


def make_kind(name: str, options: Mapping[str, object]) -> ScorerKind:
    """Return a scorer kind with its options set.

    Raises:
        ValueError: no kind has the name, or an option does not exist or has a wrong value.
    """
    try:
        kind = SCORER_KINDS[check_kind(name)]
    except ValueError as error:
        raise ValueError(f"kind = {name!r}: {error}") from None
    try:
        check_option_names(name, options)
    except ValueError as error:
        raise ValueError(f"options: {error}") from None
    try:
        return kind(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise ValueError(f"options.{field} = {problem['input']!r}: {problem['msg']}") from None
