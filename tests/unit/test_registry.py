"""A registry: found modules, entry points of other packages, names defined twice."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.registry import PluginError, Registry

GROUP = "prm_orchestrator.test_kinds"
OWN = "from own_kinds import KINDS\nKINDS.add('{name}', {value})\n"


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[int]]:
    """A registry of a package with two modules."""
    package = tmp_path / "own_kinds"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from orchestrator.registry import Registry\n"
        f"KINDS = Registry('kind', 'own_kinds', '{GROUP}')\n"
    )
    for number, name in enumerate(("apple", "pear")):
        (package / f"{name}.py").write_text(OWN.format(name=name, value=number))
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name.startswith("own_kinds")]:
        monkeypatch.delitem(sys.modules, module)
    yield importlib.import_module("own_kinds").KINDS
    for module in [name for name in sys.modules if name.startswith(("own_kinds", "their_kind"))]:
        del sys.modules[module]


def add_package(folder: Path, text: str) -> None:
    """Another package with an entry point of the group."""
    (folder / "their_kind.py").write_text(text)
    info = folder / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nplum = their_kind\n")


def test_the_packages_own_modules_are_found(kinds: Registry[int]) -> None:
    assert dict(kinds) == {"apple": 0, "pear": 1} and len(kinds) == 2
    assert "plum" not in kinds and kinds["pear"] == 1


def test_another_package_adds_by_an_entry_point(kinds: Registry[int], tmp_path: Path) -> None:
    add_package(tmp_path, OWN.format(name="plum", value=7))
    assert dict(kinds) == {"apple": 0, "pear": 1, "plum": 7}


def test_a_name_that_another_package_defines_again_is_an_error(
    kinds: Registry[int], tmp_path: Path
) -> None:
    add_package(tmp_path, OWN.format(name="pear", value=7))
    with pytest.raises(PluginError, match=r"entry point 'plum' .* kind 'pear' is defined twice"):
        list(kinds)


def test_a_package_that_cannot_be_imported_is_named(kinds: Registry[int], tmp_path: Path) -> None:
    add_package(tmp_path, "import nowhere_to_be_found\n")
    told = f"package theirs, entry point 'plum' of {GROUP}: cannot be loaded: ModuleNotFoundError"
    with pytest.raises(PluginError, match=told):
        list(kinds)
    with pytest.raises(PluginError):  # a failed look leaves no half of the registry behind
        list(kinds)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "Apple", "9", "\u65e5\u672c", "x" * 41, None])
def test_a_name_that_no_field_or_folder_can_have_is_refused(
    kinds: Registry[int], name: str
) -> None:
    with pytest.raises(PluginError, match="not a valid name"):
        kinds.add(name, 1)
