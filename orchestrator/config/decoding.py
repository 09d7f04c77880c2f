"""Config sections of what comes after training: decoding, search methods, evaluation, tracking."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from orchestrator.choices import Dtype, EngineChoice, Finished, Position
from orchestrator.config.errors import shown
from orchestrator.config.fields import (
    LARGEST,
    Count,
    CountOrNone,
    Different,
    Flag,
    NotNegative,
    Number,
    Positive,
    Text,
)
from orchestrator.config.section import Section
from orchestrator.search.method import METHODS, SearchMethod, methods_in_order

MLFLOW_NAME = 200  # characters of an experiment, to which a stage is added
MOST_LISTED = 100  # settings of methods
GRID = 200  # prefix lengths that are measured
COLDEST = 1e-3  # temperature: below, logits divided by it leave float32
Temperature = Annotated[float, Field(ge=COLDEST, le=LARGEST), Number]


class ChatConfig(Section):
    """How conversations are written by models' chat templates."""

    fold_system: Flag = True  # a system message that a template does not write: into the user's


class DecodingConfig(Section):
    """How the policy samples: the same for every method."""

    temperature: Temperature = 1.0
    top_p: Annotated[float, Field(gt=0, le=1), Number] = 1.0
    max_new_tokens: Count = 64


class ScoringConfig(Section):
    """Where a prefix is scored: after the template's closing suffix, or at its last token."""

    position: Position = "closed"
    finished: Finished = "template"  # where search scores what is finished
    branch_memory_mib: Count = 256  # what the branches of a pass may take beside their trunks


def _listed(given: Any) -> Any:
    """A method of a list, which names itself."""
    if not isinstance(given, dict):
        return given
    name = given.get("name")
    kinds = {name: kind for name, kind in METHODS.items() if not kind.always_runs}
    if name not in kinds:
        value = "missing" if name is None else f"{shown(name)}: no such method"
        raise PydanticCustomError(
            "no_method",
            "name {value}; valid: {valid}",
            {
                "value": value,
                "valid": ", ".join(name for name in methods_in_order() if name in kinds),
            },
        )
    return kinds[name].model_validate(given)


if TYPE_CHECKING:
    ListedMethod = SearchMethod[Any]
else:  # Any: pydantic writes the fields of the method's own class
    ListedMethod = Annotated[Any, BeforeValidator(_listed)]


@dataclass(frozen=True)
class MethodEntry:
    """A method of a sweep.

    Attributes:
        label: its name in results: that of the method, with the fields that tell it from other
            entries of the method.
        path: its section in the config.
        method: the method with its fields.
    """

    label: str
    path: str
    method: SearchMethod[Any]


def _label(method: SearchMethod[Any], alike: Sequence[SearchMethod[Any]]) -> str:
    """The label of a method among all entries of the same method: cbs, or cbs-chunk6."""
    if len(alike) == 1:
        return method.name
    plain = [other.model_dump(mode="json") for other in alike]
    differ = [name for name in plain[0] if any(p[name] != plain[0][name] for p in plain)]
    parts = [f"{name}{getattr(method, name)}" for name in differ]
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join([method.name, *parts])).rstrip("-")


def _default_methods() -> list[str]:
    return [name for name, kind in METHODS.items() if kind.on_by_default]


class SearchSettings(Section):
    """What all methods of a sweep share, and the methods that run."""

    # null: the ORM and all variants
    scorers: Annotated[list[Text], Field(min_length=1), Different] | None = None
    max_concurrent: Count = 75  # prompts searched at once, their requests batched together
    engine: EngineChoice = "auto"  # auto: what was measured faster
    dtype: Dtype = "float32"  # of both models' weights
    # More settings of methods, each with a cell of its own: [{name: cbs, chunk: 6}, ...]
    methods: list[ListedMethod] = Field(default=[], max_length=MOST_LISTED)

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, given: Any) -> Any:
        """`search: [{name: cbs, chunk: 6}, ...]` runs these methods and no others."""
        if not isinstance(given, list) or not given:
            return given
        return {"methods": given} | dict.fromkeys(_default_methods())

    @model_validator(mode="after")
    def _methods_differ(self) -> Self:
        entries = [method for _, method in self._entries]
        for index, method in enumerate(self.methods):
            if entries.count(method) > 1:
                raise ValueError(
                    f"methods.{index}: {method.name} is given twice with the same fields; valid:"
                    " each once"
                )
        return self

    @property
    def entries(self) -> list[MethodEntry]:
        """The methods that run, in the order of tables, with their labels and paths."""
        entries = self._entries
        order = list(methods_in_order())
        entries.sort(key=lambda entry: order.index(entry[1].name))
        return [
            MethodEntry(
                _label(method, [m for _, m in entries if m.name == method.name]), path, method
            )
            for path, method in entries
        ]

    @property
    def all_methods(self) -> dict[str, SearchMethod[Any]]:
        """The methods that run, by label, in the order of tables."""
        return {entry.label: entry.method for entry in self.entries}

    @property
    def _entries(self) -> list[tuple[str, SearchMethod[Any]]]:
        """The methods that run, with their paths."""
        found: list[tuple[str, SearchMethod[Any]]] = []
        for name, kind in METHODS.items():
            method = kind(name=name) if kind.always_runs else getattr(self, name)
            if method is not None:
                found.append((f"search.{name}", method))
        found += [(f"search.methods.{i}", method) for i, method in enumerate(self.methods)]
        return found


if TYPE_CHECKING:

    class SearchConfig(SearchSettings):
        """Which methods run, with which scorers: a section a method; null turns one off."""

else:
    SearchConfig = create_model(
        "SearchConfig",
        __base__=SearchSettings,
        __module__=__name__,
        __doc__="Which methods run, with which scorers: a section a method; null turns one off.",
        **{
            name: (method | None, method() if method.on_by_default else None)
            for name, method in methods_in_order().items()
            if not method.always_runs
        },
    )


class EvaluationConfig(Section):
    """What is measured beside the cells."""

    agreement_grid: Annotated[list[Count], Different] = Field(
        default=[5, 10, 15, 20, 25, 30, 35, 40], min_length=1, max_length=GRID
    )
    pairs_per_prompt: Count = 4  # preference pairs made of a test prompt's own samples
    bootstrap_samples: Count = 2_000


class TrackingConfig(Section):
    """MLflow: null means SQLite in the output folder, and an experiment named after the task."""

    uri: Text | None = None
    experiment: Annotated[Text, Field(max_length=MLFLOW_NAME)] | None = None


class ClusterConfig(Section):
    """Logical CPUs that each process asks Ray for; few enough that data tasks find a place."""

    train_worker_cpus: Positive = 0.4
    actor_cpus: Positive = 0.1  # the policy, the reward and the reference actors, each
    data_task_cpus: Positive = 0.2
    actor_gpus: NotNegative = 0
    train_worker_gpus: NotNegative = 0
    policy_actors: Count = 2
    reward_actors: Count = 2
    search_actors: CountOrNone = 2  # of both models; 0: policy and reward apart
    reference_actors: Count = 1
    policy_cache_mib: Count | None = None  # of keys and values; null: the engine's default
    reward_cache_mib: Count | None = None
    threads: Count | None = None  # torch threads that a pool's processes share; null: all cores


class StorageConfig(Section):
    """What is kept on disk."""

    checkpoints_kept: Count = 3  # versions of a stage's checkpoint; older keys' are deleted
    free_gib: NotNegative = 1.0  # free disk that a stage must leave
