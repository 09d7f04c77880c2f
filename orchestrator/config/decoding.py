"""Config sections of decoding: chat templates, sampling, scoring, search methods."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from orchestrator.choices import Dtype, EngineChoice, FinishedPosition, Position
from orchestrator.config.errors import shown
from orchestrator.fields.section import Section
from orchestrator.fields.types import (
    LARGEST,
    Count,
    Flag,
    Number,
    Text,
    Unique,
)
from orchestrator.registry import PluginError
from orchestrator.search.method import METHODS, AnySearchMethod, SearchMethod, methods_in_order

MOST_LISTED = 100  # settings of methods
LONGEST_LABEL = 80  # characters, of a folder's name
COLDEST = 1e-3  # least temperature: with a lower one, logits / temperature overflow float32
Temperature = Annotated[float, Field(ge=COLDEST, le=LARGEST), Number]


class ChatConfig(Section):
    """How models' chat templates render conversations."""

    fold_system: Flag = True
    """Whether a system message that a chat template does not render is prepended to the first user
    message. If false, the template decides, and a conversation that it rejects is a rejected
    row."""


class DecodingConfig(Section):
    """How the policy samples: the same for every method."""

    temperature: Temperature = 1.0
    """Sampling temperature of the policy."""
    top_p: Annotated[float, Field(gt=0, le=1), Number] = 1.0
    """Nucleus sampling: total probability of the tokens that are kept; 1 keeps all tokens."""
    max_new_tokens: Count = 64
    """Maximum number of tokens of a response. It must leave room for a prompt in
    `models.architecture.max_position_embeddings`."""


class ScoringConfig(Section):
    """At which token a reward model's score is read."""

    position: Position = "closed"
    """Where a prefix is scored, in training and in search: `closed` after the closing suffix of the
    chat template, `open` at its last token."""
    finished: FinishedPosition = "template"
    """Where search scores a finished response: `template` after the closing suffix in all cases,
    `position` where an unfinished prefix is scored."""
    branch_memory_mib: Count = 256
    """Estimated memory (MiB) that the branches of one pass, the closing suffixes of its prefixes,
    may take in addition to prompts and responses. Branches that do not fit go into later forward
    passes. It bounds the peak in scoring; in training, the backward pass keeps more. It changes no
    stage key."""


def _sections() -> dict[str, type[AnySearchMethod]]:
    """Return the methods that have a section, by name."""
    return {n: kind for n, kind in methods_in_order().items() if not kind.always_runs}


def _listed(config_value: object) -> object:
    """Return a method that a list names."""
    if isinstance(config_value, SearchMethod):
        return config_value
    kinds = _sections()
    fields = config_value if isinstance(config_value, dict) else {}
    name = fields.get("name")
    if not isinstance(name, str) or name not in kinds:
        why = f"name {shown(name)}: no such method" if name is not None else "a method needs a name"
        valid = f"{{name: ..., FIELD: ...}} with a name of {', '.join(kinds)}"
        raise PydanticCustomError(
            "no_method", "{why}; valid: {valid}", {"why": why, "valid": valid}
        )
    valid_fields = kinds[name].model_fields
    if unknown := [str(field) for field in fields if field not in valid_fields]:
        raise PydanticCustomError(
            "no_field", "unknown key {field}; valid: {valid}",
            {"field": shown(unknown[0]), "valid": ", ".join(valid_fields)},
        )  # fmt: skip
    return kinds[name].model_validate(fields)


if TYPE_CHECKING:
    ListedMethod = AnySearchMethod
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
    method: AnySearchMethod

    @property
    def without(self) -> str:
        """How to remove the method from the config, as a clause of an error."""
        listed = self.path.startswith("search.methods.")
        return f"search.methods without entry {self.path[15:]}" if listed else f"{self.path}=null"


def _label(method: AnySearchMethod) -> str:
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


def methods_of_list(methods: Sequence[object]) -> dict[str, object]:
    """The search section of a list of methods: these and no others."""
    return {"methods": methods} | dict.fromkeys(_sections())


class SearchSettings(Section):
    """What all methods of a sweep share, and the methods that run."""

    scorers: Annotated[list[Text], Field(min_length=1), Unique] | None = None
    """Scorers of the cells: `orm`, `reference` and names of variants. null: the ORM and all
    variants."""
    max_concurrent: Count = 75
    """Prompts that each search actor searches at once; with `cluster.search_actors: 0`, the size of
    each of the two groups of prompts ([Search](architecture.md#search)). It decides which requests
    form a batch, and so the rounding."""
    engine: EngineChoice = "auto"
    """Engine of the methods that sample during the search; best-of-n and votes choose among samples
    of transformers. `vllm` needs `cards: null`, search actors and scorers of kind `sequence`.
    `auto` is transformers, which is faster in the [CPU benchmarks](benchmarks.md#search); vLLM on
    GPUs is not measured yet."""
    dtype: Dtype = "float32"
    """Data type of the weights of both models. `float64` gives the same text in any batch, except
    for ties. `float64` and `bfloat16` need scorers of kind `sequence` on transformers."""
    methods: list[ListedMethod] = Field(default=[], max_length=MOST_LISTED)
    """Further settings of methods, each with its own cells: `[{name: cbs, chunk: 6}, ...]`. The
    name of a cell lists the fields that differ from the defaults: `cbs-chunk6`."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, config_value: object) -> object:
        """`search: [{name: cbs, chunk: 6}, ...]` runs these methods and no others."""
        if not isinstance(config_value, list) or not config_value:
            return config_value
        return methods_of_list(config_value)

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
    def all_methods(self) -> dict[str, AnySearchMethod]:
        """The methods that run, by label, in the order of tables."""
        return {entry.label: entry.method for entry in self.entries}

    @property
    def _entries(self) -> list[tuple[str, AnySearchMethod]]:
        """The methods that run, with their paths."""
        methods: list[tuple[str, AnySearchMethod]] = []
        for name, kind in METHODS.items():
            method = kind(name=name) if kind.always_runs else getattr(self, name)
            if method is not None:
                methods.append((f"search.{name}", method))
        methods += [(f"search.methods.{i}", method) for i, method in enumerate(self.methods)]
        return methods


if TYPE_CHECKING:

    class SearchConfig(SearchSettings):
        """Which methods run, with which scorers: one section for each method."""

else:

    def _field(name: str, kind: type[AnySearchMethod]) -> Any:
        """Return the type and the default of a method's section."""
        if hasattr(SearchSettings, name) or name in SearchSettings.model_fields:
            raise PluginError(f"search method {name!r}: the search section has another such field")
        try:
            default = kind() if kind.on_by_default else None
        except ValidationError as error:
            raise PluginError(
                f"search method {name!r}: on by default, and its fields have no valid defaults:"
                f" {error.errors()[0]['loc']}"
            ) from error
        summary = (inspect.getdoc(kind) or name).partition("\n\n")[0]
        return kind | None, Field(default, description=" ".join(summary.split()))

    SearchConfig = create_model(
        "SearchConfig",
        __base__=SearchSettings,
        __module__=__name__,
        __doc__=(
            "Which methods run, with which scorers: one section for each method; null turns it off."
        ),
        **{name: _field(name, kind) for name, kind in _sections().items()},
    )
