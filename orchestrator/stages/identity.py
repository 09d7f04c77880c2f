"""A stage's identity: a key that hashes its config, its inputs' keys and its own source modules.

The source of a stage is the module of its step function with every module of this project that it
imports, and theirs; never the git commit. Of each module its syntax tree counts, without
docstrings, comments and annotations. Modules that carry results but cannot change them (config,
stages, tracking, report, progress) do not count.
"""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import decode_source, find_spec
from pathlib import Path
from typing import Any

from orchestrator.stages.syntax import syntax_hash

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "actors", "jobs")
NOT_COUNTED = (
    "orchestrator.config",
    "orchestrator.stages",
    "orchestrator.tracking",
    "orchestrator.report",
    "jobs.sweep.sweep",  # starts whatever actor a step asks for; the step's own imports count
)
KEY_LENGTH = 16
ADAPTER = "adapter_config.json"  # of a LoRA adapter's folder, which names its base
_EDGE = 1 << 20  # bytes hashed at each end of a file too large to read whole
_WHOLE = 1 << 28  # files up to this many bytes are read whole


def stage_key(
    name: str,
    module: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    components: Sequence[str] = (),
) -> str:
    """The key of a stage: 16 hexadecimal digits.

    Args:
        name: the stage's name.
        module: dotted name of the module that holds its step function.
        config: JSON-able values that decide its output.
        inputs: key of each stage (or fingerprint of each file) that it reads, by name.
        components: dotted names of the modules of registered components that it runs, which may be
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
    """Hash of what a module and all project modules that it imports do, by their syntax trees."""
    digest = hashlib.sha256()
    for name in sorted(source_closure(module)):
        digest.update(f"{name}:{syntax_hash(_source_of(name))}\n".encode())
    return digest.hexdigest()


def source_closure(module: str) -> frozenset[str]:
    """The modules of the project, and of its own package, that a module imports, with itself."""
    packages = {*PACKAGES, module.partition(".")[0]}
    closure: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in closure or name.startswith(NOT_COUNTED) or _file_of(name) is None:
            continue
        closure.add(name)
        inside = name if _file_of(name).name == "__init__.py" else name.rpartition(".")[0]  # type: ignore[union-attr]
        imported = _imports(_source_of(name), inside)
        waiting += [other for other in imported if other.partition(".")[0] in packages]
    return frozenset(closure)


@cache
def _imports(source: str, package: str) -> list[str]:
    """What a module of ``package`` imports, also relative to it."""
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
    try:  # of another package, which defines a component
        spec = find_spec(module)
    except ModuleNotFoundError:  # a name that is no module, of `from package import name`
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def fingerprint(path: str) -> str:
    """Content hash of a local file or folder; a name that is not on this disk stands for itself.

    That of an adapter's folder covers its base. Files over 256 MiB are hashed by size and both
    ends.

    Raises:
        ValueError: the folder is an adapter's, and its base is not there.
    """
    place = Path(path).expanduser()
    if not place.exists():
        return f"name:{path}"
    digest = hashlib.sha256()
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    for file in files:
        digest.update(f"{file.relative_to(place) if place.is_dir() else ''}".encode())
        _hash_file(file, digest)
    if (place / ADAPTER).is_file():
        from orchestrator.checkpoints.adapters import base_of  # imports transformers

        digest.update(fingerprint(base_of(str(place))).encode())
    return digest.hexdigest()[:KEY_LENGTH]


def _hash_file(file: Path, digest: Any) -> None:
    size = file.stat().st_size
    digest.update(f":{size}:".encode())
    with file.open("rb") as stream:
        if size <= _WHOLE:
            while piece := stream.read(_EDGE):
                digest.update(piece)
            return
        digest.update(stream.read(_EDGE))
        stream.seek(-_EDGE, 2)
        digest.update(stream.read(_EDGE))
