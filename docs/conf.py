"""Settings of the documentation site: `make docs` builds it into build/docs."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "prm-orchestrator"
copyright = "the authors of prm-orchestrator"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["templates"]
html_theme = "furo"
html_title = "prm-orchestrator"
html_static_path: list[str] = []

# Markdown: links to headings use the anchors that GitHub makes.
myst_heading_anchors = 4

autodoc_mock_imports = ["deepspeed", "mlflow", "ray", "vllm"]  # slow, and not always installed
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_use_ivar = True  # attributes stand in the class's docstring alone
napoleon_numpy_docstring = False


def _escape_bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the bars of |y|, which reStructuredText takes for a substitution."""
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda bar: bar[1] or r"\|", line) for line in lines]


def _skip_generics(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool:
    """Skip classes such as SearchMethod[Any], which pydantic adds to a module."""
    return skip or "[" in name


def setup(app: Any) -> None:
    """Connect the hooks above; Sphinx calls this."""
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("autodoc-skip-member", _skip_generics)
