"""A stage's key: what changes it (config, inputs, its own sources) and what does not."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stages import identity
from orchestrator.stages.identity import fingerprint, source_closure, source_hash, stage_key
from orchestrator.stages.store import Stage

MODULE = "orchestrator.rewards.weights"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small project tree in the place of this one: a step, what it imports, what it does not."""
    step = "from orchestrator.data import words\nimport orchestrator.search.beam\n"
    files = {
        "jobs/steps/cut.py": step,
        "orchestrator/data/words.py": "def late():\n    from orchestrator.rewards import maths\n",
        "orchestrator/data/__init__.py": '"""data"""\n',
        "orchestrator/rewards/maths.py": "import numpy\nfrom orchestrator.tracking import log\n",
        "orchestrator/search/beam.py": "WIDTH = 4\n",
        "orchestrator/search/other.py": "WIDTH = 5\n",
        "orchestrator/tracking/log.py": "NAME = 1\n",
    }
    for name, text in files.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    monkeypatch.setattr(identity, "ROOT", tmp_path)
    source_hash.cache_clear()
    yield tmp_path
    source_hash.cache_clear()


def key(**changes: object) -> str:
    parts = {
        "name": "orm",
        "module": MODULE,
        "config": {"rate": 1e-3, "seed": 0},
        "inputs": {"pairs": "aa", "policy": "bb"},
    }
    return stage_key(**{**parts, **changes})  # type: ignore[arg-type]


def test_equal_parts_give_equal_keys_in_any_order() -> None:
    assert key() == key()
    assert key() == key(config={"seed": 0, "rate": 1e-3}, inputs={"policy": "bb", "pairs": "aa"})
    assert len(key()) == 16 and int(key(), 16) >= 0


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "reference"},
        {"config": {"rate": 2e-3, "seed": 0}},
        {"config": {"rate": 1e-3, "seed": "0"}},
        {"config": {"rate": 1e-3}},
        {"inputs": {"pairs": "aa", "policy": "cc"}},
        {"inputs": {"pairs": "bb", "policy": "aa"}},
        {"inputs": {"pairs": "aa"}},
        {"module": "orchestrator.rewards.packed"},
    ],
    ids=str,
)
def test_each_part_changes_the_key(changes: dict[str, object]) -> None:
    assert key(**changes) != key()


def test_an_inputs_key_runs_through_to_all_that_reads_it() -> None:
    def chain(seed: int) -> Stage:
        data = Stage("data", MODULE, {"seed": seed})
        pairs = Stage("pairs", MODULE, {}, (data,))
        return Stage("orm", MODULE, {}, (pairs,))

    assert chain(0).key == chain(0).key != chain(1).key


def test_an_outside_file_changes_the_key(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    keys = set()
    for text in ("a", "b", "a"):
        file.write_text(text)
        keys.add(Stage("data", MODULE, {}, files={"pairs": fingerprint(str(file))}).key)
    assert len(keys) == 2


def test_the_closure_of_the_search_holds_its_engines_and_not_the_tracker() -> None:
    closure = source_closure("jobs.sweep.steps.search")
    assert closure >= {
        "jobs.sweep.steps.search", "actors.policy", "actors.reward", "orchestrator.search.method",
        "orchestrator.rewards.packed", "orchestrator.randomness",
    }  # fmt: skip
    assert source_closure("orchestrator.search.methods.beam") >= {"orchestrator.search.expansion"}
    for left_out in ("tracking", "report", "config", "stages"):
        assert not any(name.startswith(f"orchestrator.{left_out}") for name in closure)
    assert not closure & {"jobs.sweep.plan", "jobs.sweep.runner", "jobs.sweep.main"}
    assert not any(name.startswith(("jobs.sweep.runtime", "jobs.sweep.inputs")) for name in closure)


def test_what_another_process_runs_counts_as_a_source() -> None:
    for component in ("orchestrator.search.methods.vote", "orchestrator.tasks.worked_answers"):
        assert "orchestrator.data.math_worker" in source_closure(component)


def test_the_closure_follows_imports_wherever_they_stand(project: Path) -> None:
    assert source_closure("jobs.steps.cut") == {
        "jobs.steps.cut", "orchestrator.data", "orchestrator.data.words",
        "orchestrator.rewards.maths", "orchestrator.search.beam",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("jobs/steps/cut.py", True),
        ("orchestrator/rewards/maths.py", True),
        ("orchestrator/search/beam.py", True),
        ("orchestrator/search/other.py", False),
        ("orchestrator/tracking/log.py", False),
    ],
)
def test_a_changed_source_changes_the_keys_of_what_runs_it(
    project: Path, file: str, counts: bool
) -> None:
    before = stage_key("cut", "jobs.steps.cut", {}, {})
    with (project / file).open("a") as source:
        source.write("CHANGED = 1\n")
    source_hash.cache_clear()
    assert (stage_key("cut", "jobs.steps.cut", {}, {}) != before) is counts


def test_words_in_a_source_keep_the_key(project: Path) -> None:
    before = stage_key("cut", "jobs.steps.cut", {}, {})
    (project / "orchestrator/search/beam.py").write_text(
        '"""Beam search."""\n\nWIDTH: int = 4  # candidates\n'
    )
    source_hash.cache_clear()
    assert stage_key("cut", "jobs.steps.cut", {}, {}) == before


@pytest.mark.parametrize(
    "text_of_import",
    ["from some_plugin import maths\n", "from . import maths\n", "from .maths import WIDTH\n"],
)
def test_a_components_source_counts_in_the_stages_that_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_of_import: str
) -> None:
    """It may be another package's, which is hashed with what it imports of its own."""
    package = tmp_path / "some_plugin"
    package.mkdir()
    for name, text in {"__init__": "", "method": text_of_import}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "some_plugin", raising=False)
    keys = []
    for text in ("WIDTH = 4\n", "\ufeffWIDTH = 4  # beams\n", "WIDTH = 5\n"):
        (package / "maths.py").write_text(text)
        source_hash.cache_clear()
        keys.append(stage_key("cell", MODULE, {}, {}, ["some_plugin.method"]))
    assert keys[0] == keys[1] != keys[2] and stage_key("cell", MODULE, {}, {}) not in keys


def test_a_folders_fingerprint_is_its_names_and_bytes(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for file, text in files.items():
            place = tmp_path / name / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return fingerprint(str(tmp_path / name))

    first = folder("a", {"config.json": "{}", "sub/model.safetensors": "123"})
    assert first == folder("b", {"sub/model.safetensors": "123", "config.json": "{}"})
    assert first != folder("c", {"config.json": "{}", "sub/model.safetensors": "124"})
    assert first != folder("d", {"config.json": "{}", "other/model.safetensors": "123"})


def test_a_hub_name_stands_for_itself() -> None:
    assert fingerprint("org/model") == "name:org/model"


def test_a_large_file_is_told_by_size_and_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_LARGE", 10)
    monkeypatch.setattr(identity, "_EDGE", 4)
    prints = []
    for text in ("aaaa-middle-zzzz", "aaab-middle-zzzz", "aaaa-middle-zzzy", "aaaa-middle--zzzz"):
        (tmp_path / "file").write_text(text)
        prints.append(fingerprint(str(tmp_path / "file")))
    assert len(set(prints)) == 4
