"""The dry run's estimates: from a measurement of the machine and of the run's policy."""

from dataclasses import astuple
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from jobs.sweep.estimates import Rates, seconds_of
from jobs.sweep.plan import Plan
from jobs.sweep.precision import shape_of
from orchestrator.config.load import load_config
from orchestrator.stages.store import Store
from orchestrator.tasks.helpdesk.words import vocabulary
from orchestrator.training.speed import Shape, measure

SMALL = Shape(vocabulary=300, hidden_size=64, intermediate_size=128, layers=2, heads=4,
              key_value_heads=2)  # fmt: skip


def plan(folder: Path, *overrides: str) -> Plan:
    return Plan(load_config(None, overrides), Store(str(folder)))


def estimates(found: Plan, rates: Rates) -> dict[str, float]:
    return {
        step.stage.name: seconds_of(step.stage.name, found.config, rates) for step in found.steps
    }


def test_a_measurement_takes_some_time_and_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    assert all(seconds > 0 for seconds in astuple(measure(SMALL, "float32", before + 1)))
    assert torch.get_num_threads() == before


def test_every_stage_is_estimated_and_each_by_its_own_kind_of_work(tmp_path: Path) -> None:
    found = plan(tmp_path, "variants.implicit.objective=dpo")
    once = estimates(found, Rates(1, 1, 1))
    assert all(seconds > 0 for seconds in once.values())
    for rates, slower in {
        Rates(3, 1, 1): ("policy", "orm", "reference", "variants/prm_sst", "variants/implicit"),
        Rates(1, 3, 1): ("partial_pairs", "implicit_pairs", "agreement/orm"),
        Rates(1, 1, 3): ("pairs", "samples", "cells/cbs/orm", "cells/args/prm_sst"),
    }.items():
        changed = estimates(found, rates)
        assert set(slower) <= {name for name in once if changed[name] > 1.2 * once[name]}
        assert sum(changed.values()) < 3 * sum(once.values())


def test_a_machine_is_measured_with_the_runs_own_policy(tmp_path: Path, wide_policy: str) -> None:
    embedded = plan(tmp_path)
    assert shape_of(embedded.config, None) == Shape(len(vocabulary()), 128, 384, 4, 4, 4)
    given = LlamaForCausalLM.from_pretrained(wide_policy).config
    assert shape_of(embedded.config, wide_policy) == Shape(
        given.vocab_size, given.hidden_size, given.intermediate_size, given.num_hidden_layers,
        given.num_attention_heads, given.num_key_value_heads,
    )  # fmt: skip
    large = "models.architecture={hidden_size: 512, intermediate_size: 2048, num_hidden_layers: 60}"
    assert shape_of(plan(tmp_path, large).config, None) == Shape(
        len(vocabulary()), 512, 2048, 60, 4, 4
    )
    assert all(seconds > 0 for seconds in astuple(Rates.of(embedded.config)))


@pytest.mark.parametrize("field", ["data.orm_pairs", "data.test_prompts", "search.cbs.beams"])
def test_more_work_is_estimated_longer(tmp_path: Path, field: str) -> None:
    less, more = (
        sum(estimates(plan(tmp_path, f"{field}={count}"), Rates(1, 1, 1)).values())
        for count in ((800, 8_000) if field == "data.orm_pairs" else (40, 4_000))
    )
    assert more > 1.05 * less
