"""The key of a stage: a hash of its config, the keys of its inputs, and its source modules.

The source modules are the module of the step function and all modules of this project that it
imports, directly or not; the git commit is not part of the key. A module counts by its syntax tree
without docstrings, comments and annotations. Modules that transport results but cannot change them
(config, fields, stages, tracking, report, and the sweep's runtime) do not count.
"""

import ast
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import decode_source, find_spec
from pathlib import Path

from orchestrator.stages.syntax import syntax_hash

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "actors", "jobs")
NOT_COUNTED = (
    "orchestrator.config",
    "orchestrator.fields",
    "orchestrator.stages",
    "orchestrator.tracking",
    "orchestrator.report",
    "jobs.sweep.runtime",  # starts the actors of a step; the imports of the step count
)
KEY_LENGTH = 16
NAMED = "name:"  # begins the fingerprint of a hub name or URI
ADAPTER = "adapter_config.json"  # names the base of a LoRA adapter
_HASH = re.compile(f"[0-9a-f]{{{KEY_LENGTH}}}")  # the fingerprint of contents
_EDGE = 1 << 20  # bytes that are hashed at each end of a large file
_LARGE = 1 << 28  # bytes; larger files are hashed by size and both ends


def stage_key(
    name: str,
    module: str,
    config: Mapping[str, object],
    inputs: Mapping[str, str],
    components: Sequence[str] = (),
) -> str:
    """Return the key of a stage: 16 hexadecimal digits.

    Args:
        name: name of the stage.
        module: dotted name of the module with its step function.
        config: JSON values that decide its output.
        inputs: the key of each stage and the fingerprint of each file that it reads, by name.
        components: dotted names of the modules of registered components that it runs, also those
            of other packages.
    """
    identity = {
        "name": name,
        "config": config,
        "inputs": dict(inputs),
        "sources": [source_hash(part) for part in (module, *components)],
    }
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@cache
def source_hash(module: str) -> str:
    """Return a hash of the syntax trees of a module and all project modules that it imports."""
    digest = hashlib.sha256()
    for name in sorted(source_closure(module)):
        digest.update(f"{name}:{syntax_hash(_source_of(name))}\n".encode())
    return digest.hexdigest()


def source_closure(module: str) -> frozenset[str]:
    """Return a module and all modules of the project and of its package that it imports."""
    packages = {*PACKAGES, module.partition(".")[0]}
    closure: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in closure or name.startswith(NOT_COUNTED) or _file_of(name) is None:
            continue
        closure.add(name)
        package = name if _file_of(name).name == "__init__.py" else name.rpartition(".")[0]  # type: ignore[union-attr]
        imported = _imports(_source_of(name), package)
        pending += [other for other in imported if other.partition(".")[0] in packages]
    return frozenset(closure)


@cache
def _imports(source: str, package: str) -> list[str]:
    """Return the names that a module of ``package`` imports; relative imports are resolved."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            names.append(module)
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def _source_of(module: str) -> str:
    return decode_source(_file_of(module).read_bytes())  # type: ignore[union-attr]


def _file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    if module.partition(".")[0] in PACKAGES:
        return None
    try:  # a module of another package that defines a component
        spec = find_spec(module)
    except ModuleNotFoundError:  # `name` in `from package import name` may not be a module
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def fingerprint(path: str) -> str:
    """Return a hash of the content of a local file or folder; of a hub name or URI, the name.

    The hash of a LoRA adapter includes its base. Files over 256 MiB are hashed by size and both
    ends.

    Raises:
        ValueError: the folder is an adapter whose base does not exist.
    """
    root = Path(path).expanduser()
    if not root.exists():
        return f"{NAMED}{path}"
    digest = hashlib.sha256()
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    for file in files:
        digest.update(f"{file.relative_to(root) if root.is_dir() else ''}".encode())
        _hash_file(file, digest)
    if (root / ADAPTER).is_file():
        from orchestrator.checkpoints.adapters import base_of  # imports transformers

        digest.update(fingerprint(base_of(str(root))).encode())
    return digest.hexdigest()[:KEY_LENGTH]


def named_path(value: object) -> str | None:
    """Return the hub name or URI that a fingerprint stands for.

    Args:
        value: any value of an identity, such as a fingerprint.

    Returns:
        "" if the fingerprint is a hash of contents, None if the value is not a fingerprint.
    """
    if not isinstance(value, str):
        return None
    if value.startswith(NAMED):
        return value.removeprefix(NAMED)
    return "" if _HASH.fullmatch(value) else None


def _hash_file(file: Path, digest: "hashlib._Hash") -> None:
    size = file.stat().st_size
    digest.update(f":{size}:".encode())
    with file.open("rb") as stream:
        if size <= _LARGE:
            while block := stream.read(_EDGE):
                digest.update(block)
            return
        digest.update(stream.read(_EDGE))
        stream.seek(-_EDGE, 2)
        digest.update(stream.read(_EDGE))
