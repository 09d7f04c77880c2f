"""`training.precision: auto`: measured, the same again in a folder, in the key what was used."""

import os
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from jobs.sweep import precision
from jobs.sweep.main import make_plan
from jobs.sweep.plan import Plan
from jobs.sweep.precision import FILE, Choice, remember, shape_of
from jobs.sweep.runtime.resources import threads_per_process
from orchestrator.config.load import load_config
from orchestrator.stages.store import Store
from orchestrator.training.precision import CLEARLY, Speeds, device_name, speeds

OTHER = {"float32": "bfloat16", "bfloat16": "float32"}
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
TRAINED = ("policy", "orm", "reference", "variants/prm_sst")
SLOW = Speeds("this processor", "float32", {"float32": 0.001, "bfloat16": 0.05}, "a product")
FAST = Speeds("this processor", "bfloat16", {"float32": 0.001, "bfloat16": 0.0002}, "a step")
EMBEDDED = shape_of(load_config(None), None)
MODEL = "-".join(map(str, astuple(EMBEDDED)))


def plan(folder: Path, *overrides: str) -> Plan:
    return Plan(load_config(None, overrides), Store(str(folder)))


def used(found: Plan) -> str:
    """The precision that all trained stages have in their keys."""
    (only,) = {found.stages[name].config["precision"] for name in TRAINED}
    assert found.config.training.precision == only
    return str(only)


def keys(found: Plan) -> dict[str, str]:
    return {step.stage.name: step.stage.key for step in found.steps}


def test_a_device_is_timed_in_both_and_its_threads_stay() -> None:
    before = torch.get_num_threads()
    found = speeds("cpu", EMBEDDED, before + 1)
    assert torch.get_num_threads() == before
    assert found.device == device_name("cpu")
    assert set(found.seconds) == set(OTHER) and all(0 < t < 5 for t in found.seconds.values())
    clear = found.seconds["float32"] > CLEARLY * found.seconds["bfloat16"]
    assert found.faster == ("bfloat16" if clear else "float32")
    assert not (found.faster == "bfloat16" and found.bfloat16_is_slow)


def test_a_processor_without_bfloat16_arithmetic_takes_float32() -> None:
    """A newer one that is told to compute as it, too; and it is another device then."""
    program = (
        "from orchestrator.training.precision import speeds\n"
        "from orchestrator.training.speed import Shape\n"
        "found = speeds('cpu', Shape(49152, 2048, 8192, 16, 32, 8), 1)\n"
        "print(found.faster, found.work, found.device, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, **AVX2}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    faster, work, device = done.stdout.strip().split("|")
    assert (faster, work) == ("float32", "a matrix product"), (
        "no step of a large model is tried in it"
    )
    assert device.endswith("AVX2 AVX2")


def test_auto_has_the_keys_of_what_it_stands_for_and_is_said(tmp_path: Path) -> None:
    found = plan(tmp_path / "out")
    assert (
        used(found) == speeds("cpu", EMBEDDED, threads_per_process(found.config.cluster, 1)).faster
    )
    assert keys(found) == keys(plan(tmp_path / "out", f"training.precision={used(found)}"))
    other = plan(tmp_path / "out", f"training.precision={OTHER[used(found)]}")
    assert other.precision is None and used(other) == OTHER[used(found)]
    assert not {keys(found)[name] for name in TRAINED} & set(keys(other).values())
    assert keys(found)["data"] == keys(other)["data"]
    _, said = make_plan(load_config(None, [f"output_dir={tmp_path}/out"]), None)
    assert f"training.precision auto is {used(found)}: a " in said
    assert not (tmp_path / "out").exists(), "a plan writes nothing"


@pytest.mark.parametrize("before", OTHER)
def test_a_rerun_on_the_same_device_takes_what_the_folder_says(tmp_path: Path, before: str) -> None:
    """Whatever a measurement would say now."""
    choice = Choice(MODEL, before, device_name("cpu"), "a product takes")  # type: ignore[arg-type]
    remember(Store(str(tmp_path)), choice)
    found = plan(tmp_path)
    assert used(found) == before and found.precision == choice
    assert not list(tmp_path.glob(f".{FILE}*"))


def test_another_devices_choice_stands_unless_it_is_slow_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = Choice(MODEL, "bfloat16", "another processor", "a step takes")
    remember(Store(str(tmp_path)), choice)
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: FAST)
    assert used(plan(tmp_path)) == "bfloat16"
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: SLOW)
    here = plan(tmp_path)
    assert used(here) == "float32" and here.precision is not None
    assert here.precision.device == "this processor"
    assert "a product takes 1 ms in float32 and 50 ms in bfloat16" in str(here.precision)
    remember(Store(str(tmp_path)), here.precision)
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: FAST)
    monkeypatch.setattr(precision, "device_name", lambda kind: "a third processor")
    assert used(plan(tmp_path)) == "float32", "what is done in it is not done again"


def test_models_of_another_size_are_measured_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, larger = Store(str(tmp_path)), "models.architecture.hidden_size=256"
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: FAST)
    first = plan(tmp_path)
    assert first.precision is not None
    remember(store, replace(first.precision, device=device_name("cpu")))
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: SLOW)
    second = plan(tmp_path, larger)
    assert second.precision is not None and used(second) == "float32"
    remember(store, replace(second.precision, device=device_name("cpu")))
    monkeypatch.setattr(precision, "speeds", None)
    assert (used(plan(tmp_path)), used(plan(tmp_path, larger))) == ("bfloat16", "float32")


def test_what_another_device_has_finished_is_found_though_it_is_slow_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "speeds", lambda kind, shape, threads: SLOW)
    remember(Store(str(tmp_path)), Choice(MODEL, "bfloat16", "another processor", "a step takes"))
    made = plan(tmp_path, "training.precision=bfloat16")
    trained = [step for step in made.steps if step.stage.keeps_checkpoint]
    for step in trained[1:]:
        with made.store.writing(step.stage, {}):
            pass
    assert used(plan(tmp_path)) == "float32", "one is left to do"
    with made.store.writing(trained[0].stage, {}):
        pass
    assert used(plan(tmp_path)) == "bfloat16"


def test_a_card_takes_bfloat16_without_a_measurement(tmp_path: Path) -> None:
    found = plan(tmp_path, "cluster.train_worker_gpus=1")
    has_it = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False)
    assert used(found) == ("bfloat16" if has_it else "float32")
    assert " takes " not in str(found.precision)


def test_nothing_is_measured_where_nothing_is_trained(
    tmp_path: Path, word_policy: str, word_reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "speeds", None)
    none = [f"variants.{name}=null" for name in load_config(None).variants]
    given = [f"models.policy={word_policy}", f"models.orm={word_reward}", *none]
    found = plan(tmp_path, *given)
    assert found.precision is None
    assert not [step for step in found.steps if step.stage.keeps_checkpoint]
