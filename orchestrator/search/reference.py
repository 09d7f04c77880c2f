"""The reference page of all search methods, written from their classes.

python -m orchestrator.search.reference > docs/methods.md
"""

import inspect
import json
import re
from typing import Any

from orchestrator.search.method import SearchMethod, methods_in_order

HEAD = """# Search methods

Written by `python -m orchestrator.search.reference`; do not edit. The fields are those of a
method's section in the config (`search.NAME.FIELD`), the arguments of `jobs/decode.py` and the
keyword arguments of `Decoder.decode`. In a sweep each section also has `prompts`: how many of the
test prompts it answers, from the first (null: all).
"""


def methods_page() -> str:
    """Return the page in Markdown."""
    return "\n".join([HEAD, *(_section(name, kind) for name, kind in methods_in_order().items())])


def _section(name: str, kind: type[SearchMethod[Any]]) -> str:
    traits = []
    if kind.always_runs:
        traits.append("runs in every sweep")
    elif kind.on_by_default:
        traits.append("runs in a sweep unless its section is null")
    else:
        traits.append("runs in a sweep that has its section")
    traits.append("asks a scorer" if kind.needs_scorer else "asks no scorer")
    if kind.needs_answers:
        traits.append("for tasks with final answers")
    if kind.needs_entropies:
        traits.append("not on vLLM, which returns no entropies")
    lines = [f"## {name}", "", _paragraph(inspect.getdoc(kind) or ""), ""]
    lines += [f"It {'; '.join(traits)}.", ""]
    rows = [
        f"| `{field}` | {_default(info.default)} | {_paragraph(info.description or '')} |"
        for field, info in kind.model_fields.items()
        if field not in ("name", "prompts")
    ]
    if rows:
        lines += ["| field | default | meaning |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def _default(value: object) -> str:
    return f"`{json.dumps(value)}`"


def _paragraph(text: str) -> str:
    """Text on one line, without the double backticks of docstrings."""
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join(text.split()))


if __name__ == "__main__":
    print(methods_page(), end="")
