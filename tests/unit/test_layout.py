"""The house rules that a reader relies on: who imports whom, and what is nowhere."""

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "actors", "jobs")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
# Who may import whom; a package may always import itself.
ALLOWED = {"orchestrator": set(), "actors": {"orchestrator"}, "jobs": {"orchestrator", "actors"}}


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names.add(str(node.module))
    return names


def roots(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_there_are_sources_to_look_at() -> None:
    assert len(SOURCES) > 60
    assert "ray" in roots(ROOT / "actors" / "policy.py")
    assert "mlflow" in roots(ROOT / "orchestrator" / "tracking" / "mlflow_tracker.py")


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_imports_go_from_jobs_to_actors_to_the_library_only(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    others = roots(file) & set(PACKAGES) - {package}
    assert others <= ALLOWED[package]


def folder_of(module: str) -> str:
    """The package of a module within its layer, or the module itself at the top of the layer."""
    return ".".join(module.split(".")[:2])


def test_no_two_packages_import_each_other() -> None:
    """Nor in a longer circle, not even for types alone."""
    uses: dict[str, set[str]] = {}
    for file in SOURCES:
        importer = folder_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        used = {folder_of(name) for name in imports(file) if name.split(".")[0] in PACKAGES}
        uses.setdefault(importer, set()).update(used - {importer})
    assert "orchestrator.data" in uses["orchestrator.rewards"]
    order = list(TopologicalSorter(uses).static_order())  # raises CycleError
    assert order.index("orchestrator.fields") < order.index("orchestrator.config")


@pytest.mark.parametrize("folder", ["search", "rewards", "data", "evaluation", "tasks"])
def test_what_is_read_beside_the_paper_knows_of_no_machinery(folder: str) -> None:
    for file in (ROOT / "orchestrator" / folder).rglob("*.py"):
        assert not roots(file) & {"ray", "vllm", "mlflow", "deepspeed"}, file


def test_the_library_knows_no_ray() -> None:
    for file in (ROOT / "orchestrator").rglob("*.py"):
        assert "ray" not in roots(file), file


def test_vllm_is_imported_only_where_its_engines_start() -> None:
    files = {
        "engines/vllm/language_model.py", "engines/vllm/generator.py", "engines/vllm/draws.py",
        "scorers/vllm_scorer.py",
    }  # fmt: skip
    places = {ROOT / "orchestrator" / name for name in files}
    places.add(ROOT / "jobs" / "benchmarks" / "smollm2_baselines.py")  # what one does without us
    assert {file for file in SOURCES if "vllm" in roots(file)} == places
    draws = "orchestrator.engines.vllm.draws"
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        at_top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert draws not in at_top
        assert not any(str(name).split(".")[0] == "vllm" for name in at_top) or (
            file.parts[-2:] == ("vllm", "draws.py")
        )


def test_search_methods_know_no_model_either() -> None:
    for file in (ROOT / "orchestrator" / "search").glob("*.py"):
        assert not roots(file) & {"torch", "transformers"}, file


def test_only_the_tracker_imports_mlflow() -> None:
    found = {file.parent for file in SOURCES if "mlflow" in roots(file)}
    assert found == {ROOT / "orchestrator" / "tracking"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_no_remote_code_and_no_pickle(file: Path) -> None:
    assert not roots(file) & {"pickle", "cloudpickle", "dill", "joblib"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.keyword):
            must_be_false = node.arg in ("trust_remote_code", "allow_pickle")
            assert not must_be_false or ast.unparse(node.value) == "False", f"{file}: {node.arg}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "np.load") or "allow_pickle=True" not in (
                ast.unparse(node)
            )
            assert called != "torch.load", f"{file}: torch.load reads pickles; use safetensors"


def test_every_module_can_be_imported() -> None:
    """On any Python that the project supports; what runs inside vLLM's process apart."""
    inside = "orchestrator.engines.vllm.draws"
    files = (file.relative_to(ROOT).with_suffix("") for file in SOURCES)
    names = [".".join(file.parts) for file in files if file.name != "__init__"]
    names.remove(inside)
    for name in names:
        importlib.import_module(name)


def test_no_file_is_a_drawer_for_everything() -> None:
    assert not {file.name for file in SOURCES} & {"utils.py", "helpers.py", "common.py", "misc.py"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_every_file_says_what_it_is_and_is_short_enough_to_read(file: Path) -> None:
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) < 300


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_every_function_fits_on_a_screen_or_two(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines < 60, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("file", sorted((ROOT / "jobs").glob("*.py")), ids=name_of)
def test_an_entry_point_declares_and_hands_over(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 60
