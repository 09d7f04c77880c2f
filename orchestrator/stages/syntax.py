"""A hash of a module's code: its syntax tree without docstrings, comments and annotations."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache

# Fields of syntax nodes that do not change what runs.
_IGNORED = ("annotation", "returns", "type_comment", "type_params", "kind")


@cache
def syntax_hash(source: str) -> str:
    """Return the SHA-256 of a module's syntax tree; all supported Python versions give the same.

    Comments, formatting, docstrings and annotations do not change it. An annotated name in a class
    body still counts, because it declares a field; its annotation does not.

    Raises:
        SyntaxError: ``source`` is not Python.
    """
    digest = hashlib.sha256()
    for token in _tokens(ast.parse(source), in_class=False):
        digest.update(token.encode() + b"\0")
    return digest.hexdigest()


def _tokens(node: ast.AST, in_class: bool) -> Iterator[str]:
    """Yield the tree in prefix order, each node closed by a parenthesis."""
    if isinstance(node, ast.Pass):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring, or another constant without effect
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty texts to f-strings
        node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    if isinstance(node, ast.AnnAssign) and not in_class:
        if node.value is not None:
            yield from _tokens(ast.Assign([node.target], node.value), in_class)
        return
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        if name in _IGNORED or value is None or value == []:
            continue  # newer versions of Python add fields that are empty
        yield name
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                declares = isinstance(node, ast.ClassDef) or (in_class and not function)
                yield from _tokens(child, declares)
            else:  # repr has a limit of digits
                yield hex(child) if type(child) is int else repr(child)
    yield ")"
