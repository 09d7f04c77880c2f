"""The base class of training objectives, their traits, and the registry.

The config looks objectives up here before anything starts. So this module, and every module that
defines an objective, imports torch only inside the functions that compute a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from orchestrator.objectives.examples import Example
from orchestrator.registry import PluginError, Registry

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

DataKind = Literal["demonstrations", "partial_pairs", "pairs", "responses"]
Start = Literal["policy", "orm"]
RowT = TypeVar("RowT", bound=Example)

# Kinds of rows: the model that a training on them starts from, and whether it scores by log ratios.
SUPPORTED: dict[DataKind | None, tuple[Start, bool]] = {
    "demonstrations": ("policy", False),
    "partial_pairs": ("orm", False),
    "pairs": ("policy", True),
    "responses": ("policy", True),
    None: ("policy", True),
}


@dataclass(frozen=True)
class LossContext:
    """What a loss is computed with, besides the rows.

    Attributes:
        model: the model that is trained.
        pad_id: token id of padding.
        closing_ids: token ids that close a prefix before it is scored; empty for open scoring.
        branch_memory_mib: memory that the branches of one packed forward may take (MiB).
        beta: factor of the log ratio.
        step_mean: mean of ``step_terms`` over the rows of the step, of all workers.
    """

    model: "PreTrainedModel"
    pad_id: int = 0
    closing_ids: tuple[int, ...] = ()
    branch_memory_mib: int = 256
    beta: float = 1.0
    step_mean: float = 0.0


class Objective(Generic[RowT]):
    """A training objective; a subclass sets ``name`` and ``label``, and defines its loss.

    Most objectives subclass one of the families, which read the rows and run the model:
    ``PartialPairObjective`` (``partial_pairs.py``), ``PairObjective`` or ``ResponseObjective``
    (``log_ratios.py``). The other class variables are traits, which decide what the sweep prepares.

    Attributes:
        name: value of ``variants.NAME.objective`` in the config.
        label: name in texts.
        data_kind: what a training row is. "demonstrations": a prompt with a response.
            "partial_pairs": a preference pair cut into prefixes, each with a weight. "pairs": a
            preference pair with the reference policy's log-probabilities. "responses": responses
            with labels and these log-probabilities. None: nothing is trained, and the given models
            score as they are.
        starts_from: the model whose weights the training starts from.
        is_log_ratio: whether the trained model scores by its log ratio to the reference policy.
        fields: fields of ``variants.NAME`` that the training reads.
        needs_unrelated: whether each row needs a response to another prompt.
        needs_step_mean: whether the loss depends on a mean over all rows of the step.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    data_kind: ClassVar[DataKind | None] = None
    starts_from: ClassVar[Start] = "policy"
    is_log_ratio: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ()
    needs_unrelated: ClassVar[bool] = False
    needs_step_mean: ClassVar[bool] = False

    @classmethod
    def is_trained(cls) -> bool:
        """Whether there is a training at all."""
        return cls.data_kind is not None

    @classmethod
    def takes_partial_pairs(cls) -> bool:
        """Whether a training row is a preference pair cut into prefixes."""
        return cls.data_kind == "partial_pairs"

    @classmethod
    def is_of_variants(cls) -> bool:
        """Whether a variant can have it; demonstrations train the policy."""
        return cls.data_kind != "demonstrations"

    @classmethod
    def loss(cls, context: LossContext, rows: Sequence[RowT]) -> "tuple[Tensor, int]":
        """Return the sum of the loss over some rows (a scalar), and how many terms are right.

        The sum is over ``num_loss_terms`` terms. The train loop divides it by the number of terms
        of the whole step, so a step gives the same gradient in any number of micro-batches.
        """
        raise NotImplementedError

    @classmethod
    def num_loss_terms(cls, row: RowT) -> int:
        """Return the number of terms of a row in the loss: tokens, (partial) pairs or responses."""
        return row.size

    @classmethod
    def step_terms(cls, context: LossContext, rows: Sequence[RowT]) -> tuple[float, int]:
        """Return the sum and the count of what ``step_mean`` is the mean of, without gradient.

        Called before the losses of a step if ``needs_step_mean`` is set.
        """
        raise NotImplementedError


AnyObjective = Objective[Any]  # an objective with any type of rows
ObjectiveT = TypeVar("ObjectiveT", bound=type[AnyObjective])
OBJECTIVES: Registry[type[AnyObjective]] = Registry(
    "objective", "orchestrator.objectives.definitions", "prm_orchestrator.objectives"
)


def register(objective: ObjectiveT) -> ObjectiveT:
    """Register an objective under its name.

    Raises:
        PluginError: another objective has the name, or the traits contradict each other.
    """
    where = f"objective {objective.name!r}"
    if objective.data_kind not in SUPPORTED:
        valid = ", ".join(map(repr, SUPPORTED))
        raise PluginError(f"{where}: data_kind = {objective.data_kind!r}; valid: {valid}")
    traits = (objective.starts_from, objective.is_log_ratio)
    if traits != SUPPORTED[objective.data_kind]:
        start, is_log_ratio = SUPPORTED[objective.data_kind]
        raise PluginError(
            f"{where}: with data_kind {objective.data_kind!r}, starts_from must be {start!r} and"
            f" is_log_ratio {is_log_ratio}; subclass the family of this data_kind"
        )
    if objective.is_trained() and objective.loss.__func__ is Objective.loss.__func__:  # type: ignore[attr-defined]
        raise PluginError(f"{where}: it is trained, but defines no loss")
    OBJECTIVES.add(objective.name, objective)
    return objective


def variant_objectives() -> dict[str, type[AnyObjective]]:
    """Return the objectives that a variant can have, by name, sorted."""
    return {
        name: OBJECTIVES[name] for name in sorted(OBJECTIVES) if OBJECTIVES[name].is_of_variants()
    }


def log_ratio_names() -> list[str]:
    """Return the names of the objectives whose models score by a log ratio, sorted."""
    return [name for name, objective in variant_objectives().items() if objective.is_log_ratio]
