"""Small instances of every registered search method, built from the types of its fields.

A new method is in every contract test without being named in any.
"""

import operator
from functools import partial
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from orchestrator.search.method import METHODS, AnySearchMethod

NO_SETTINGS = ("name", "prompts")
# Values of fields that need scores of a certain kind, here of models whose scores have no bounds.
NEEDS_OTHER_SCORES = {"weights": "score"}
DELIMITERS = ("w1", "w2 w", ".", "3", " ", "never")  # some of them in texts of the oracle's words


def example(name: str, delimiter: str = "1", **fields: Any) -> AnySearchMethod:
    """A method whose counts are 3 and whose steps end with ``delimiter``, with ``fields`` set."""
    values = {
        field: _example(info, delimiter)
        for field, info in METHODS[name].model_fields.items()
        if field not in NO_SETTINGS
    }
    return METHODS[name](**{**values, **fields})


def examples(delimiter: str = "1") -> dict[str, AnySearchMethod]:
    """An example of every method."""
    return {name: example(name, delimiter) for name in METHODS}


def any_method() -> st.SearchStrategy[AnySearchMethod]:
    """Any method with small values in its fields."""
    return st.sampled_from(list(METHODS)).flatmap(_any_of)


def _any_of(name: str) -> st.SearchStrategy[AnySearchMethod]:
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    for field, info in METHODS[name].model_fields.items():
        if field not in NO_SETTINGS:
            excluded = NEEDS_OTHER_SCORES.get(field)
            strategies[field] = _strategy(info).filter(partial(operator.ne, excluded))
    return st.builds(METHODS[name], **strategies)


def _type(info: FieldInfo) -> Any:
    """The field's type, without None."""
    kinds = [kind for kind in get_args(info.annotation) if kind is not NoneType]
    optional = NoneType in get_args(info.annotation)
    return _plain(kinds[0] if optional else info.annotation)


def _plain(kind: Any) -> Any:
    """A type without what annotates it."""
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _metadata(info: FieldInfo) -> list[Any]:
    """What annotates the field's type, also where that may be None."""
    found = list(info.metadata)
    for kind in get_args(info.annotation):
        for part in getattr(kind, "__metadata__", ()):
            found += part.metadata if isinstance(part, FieldInfo) else [part]
    return found


def _example(info: FieldInfo, delimiter: str) -> Any:
    kind = _type(info)
    if get_origin(kind) is Literal or (kind is float and info.default is not None):
        return info.default
    return {int: 3, float: 1.0, str: delimiter}[kind]


def _strategy(info: FieldInfo) -> st.SearchStrategy[Any]:
    kind = _type(info)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is int:
        return st.integers(1, 5)
    if kind is str:
        return st.sampled_from(DELIMITERS)
    bounds: dict[str, float] = {}
    for bound in _metadata(info):
        bounds |= {key: getattr(bound, key) for key in ("ge", "gt", "le") if hasattr(bound, key)}
    low = max(bounds.get("ge", -3.0), bounds.get("gt", -3.1) + 0.1, -3.0)
    return st.floats(low, min(bounds.get("le", 4.0), 4.0))
