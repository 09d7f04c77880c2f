"""Config sections of what comes after training: decoding, search methods, evaluation, tracking."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, create_model, model_validator
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
from orchestrator.registry import PluginError
from orchestrator.search.method import METHODS, SearchMethod, methods_in_order

MLFLOW_NAME = 200  # characters of an experiment, to which a stage is added
MOST_LISTED = 100  # settings of methods
LONGEST_LABEL = 80  # characters, of a folder's name
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


def _sections() -> dict[str, type[SearchMethod[Any]]]:
    """The methods that have a section, by name."""
    return {n: kind for n, kind in methods_in_order().items() if not kind.always_runs}


def _listed(given: Any) -> Any:
    """A method of a list, which names itself."""
    if isinstance(given, SearchMethod):
        return given
    kinds = _sections()
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str) or name not in kinds:
        why = f"name {shown(name)}: no such method" if name is not None else "a name is wanted"
        valid = f"{{name: ..., FIELD: ...}} with a name of {', '.join(kinds)}"
        raise PydanticCustomError(
            "no_method", "{why}; valid: {valid}", {"why": why, "valid": valid}
        )
    fields = kinds[name].model_fields
    if unknown := [str(field) for field in given if field not in fields]:
        raise PydanticCustomError(
            "no_field", "unknown key {field}; valid: {valid}",
            {"field": shown(unknown[0]), "valid": ", ".join(fields)},
        )  # fmt: skip
    return kinds[name].model_validate(given)


if TYPE_CHECKING:
    ListedMethod = SearchMethod[Any]
else:  # Any: pydantic writes the fields of the method's own class
    ListedMethod = Annotated[Any, BeforeValidator(_listed)]


@dataclass(frozen=True)
class MethodEntry:
    """A method of a sweep.

    Attributes:
        label: its name in results.
        path: its section in the config.
        method: the method with its fields.
    """

    label: str
    path: str
    method: SearchMethod[Any]

    @property
    def without(self) -> str:
        """How it is left out, as a clause of an error."""
        listed = self.path.startswith("search.methods.")
        return f"search.methods without entry {self.path[15:]}" if listed else f"{self.path}=null"


def _label(method: SearchMethod[Any]) -> str:
    """The method's name with the fields that are not its defaults: cbs, or cbs-chunk6.

    It does not depend on the other methods of the sweep, so that one more redoes no stage.
    """
    fields = type(method).model_fields
    parts = [
        f"{name}{value}"
        for name, value in method.model_dump(mode="json").items()
        if name != "name" and value != fields[name].default
    ]
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join([method.name, *parts])).rstrip("-.")


def methods_of_list(given: list[Any]) -> dict[str, Any]:
    """The search section of a list of methods: these and no others."""
    return {"methods": given} | dict.fromkeys(_sections())


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
        return methods_of_list(given)

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
        """The methods that run, in the order of tables, with their labels and paths.

        A section's label is the method's name; a label that is too long for a folder, or that
        another entry has, becomes the name with the entry's number in the list.
        """
        entries: list[MethodEntry] = []
        for path, method in self._entries:
            label = method.name
            if path.startswith("search.methods."):
                label = _label(method)
                if len(label) > LONGEST_LABEL or label in [entry.label for entry in entries]:
                    label = f"{method.name}-{int(path[15:]) + 1}"
            entries.append(MethodEntry(label, path, method))
        order = list(methods_in_order())
        return sorted(entries, key=lambda entry: order.index(entry.method.name))

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

    def _field(name: str, kind: type[SearchMethod[Any]]) -> Any:
        """A method's section with its default."""
        if hasattr(SearchSettings, name) or name in SearchSettings.model_fields:
            raise PluginError(f"search method {name!r}: the search section has another such field")
        try:
            return kind | None, kind() if kind.on_by_default else None
        except ValidationError as error:
            raise PluginError(
                f"search method {name!r}: on by default, and its fields have no valid defaults:"
                f" {error.errors()[0]['loc']}"
            ) from error

    SearchConfig = create_model(
        "SearchConfig",
        __base__=SearchSettings,
        __module__=__name__,
        __doc__="Which methods run, with which scorers: a section a method; null turns one off.",
        **{name: _field(name, kind) for name, kind in _sections().items()},
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
