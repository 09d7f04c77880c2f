"""The plan of one model: what it needs and no more, under the keys of the whole plan."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from jobs.sweep.plan import Plan
from jobs.sweep.runner import SMALL_GIB, StageFailed, perform, print_plan, written_gib
from jobs.sweep.stage_names import CellName, cell_names, samples_per_prompt, stage_names
from orchestrator.config.load import load_config
from orchestrator.data.held_out import held_out_pairs
from orchestrator.data.tables import write_pairs
from orchestrator.judges.task_grade import TaskGrade
from orchestrator.records import PreferencePair, Prompt
from orchestrator.stages.store import Store

BEFORE_ORM = ["data", "policy", "pairs"]
BEFORE_PRM = [*BEFORE_ORM, "orm", "reference", "partial_pairs"]
NEEDED = {
    "policy": ["data", "policy"],
    "orm": [*BEFORE_ORM, "orm"],
    "reference": [*BEFORE_ORM, "reference"],
    "prm_sst": [*BEFORE_PRM, "variants/prm_sst"],
    "prm_tlt": [*BEFORE_PRM, "variants/prm_sst", "variants/prm_tlt"],
    "orm_continued": [*BEFORE_PRM, "variants/prm_sst", "variants/orm_continued"],
    "implicit": [*BEFORE_ORM, "implicit_pairs", "variants/implicit"],
}
IMPLICIT = "variants.implicit.objective=dpo"


def plan(folder: Path, model: str | None, *overrides: str) -> Plan:
    return Plan(load_config(None, overrides), Store(str(folder)), model)


def names(found: Plan) -> list[str]:
    return [step.stage.name for step in found.steps]


@pytest.mark.parametrize("model", NEEDED)
def test_a_models_plan_is_what_it_needs_under_the_sweeps_keys(tmp_path: Path, model: str) -> None:
    whole = {step.stage.name: step.stage.key for step in plan(tmp_path, None, IMPLICIT).steps}
    part = plan(tmp_path, model, IMPLICIT)
    assert names(part) == NEEDED[model]
    assert {step.stage.name: step.stage.key for step in part.steps}.items() <= whole.items()


def test_the_source_of_an_objective_counts_in_the_trainings_by_it(tmp_path: Path) -> None:
    stages = {step.stage.name: step.stage for step in plan(tmp_path, None, IMPLICIT).steps}
    objectives = {
        "policy": "language_modelling", "orm": "bradley_terry", "reference": "bradley_terry",
        "variants/prm_sst": "bradley_terry", "variants/implicit": "dpo",
    }  # fmt: skip
    for name, objective in objectives.items():
        module = f"orchestrator.objectives.definitions.{objective}"
        assert stages[name].components == (module,)


GSM8K = "data={task: gsm8k, demonstrations: a.jsonl, pairs: b.jsonl, test: c.jsonl}"
SHAPES = [
    [], [IMPLICIT], ["search.cards.entropy_threshold=7"], ["search.scorers=[orm]"],
    ["search.cards=null", "search.args=null", "search.general={}"],
    ["variants.prm_sst.objective=kto", *(f"variants.{n}=null" for n in
     ("orm_continued", "prm_tlt", "prm_no_reference"))],
    ["variants.ratio={objective: density_ratio, base: a/b}", "models.orm=a/b"],
    ["models.policy=a/b", "models.reference=a/b", "search.bon=null"],
    [GSM8K, "search.vote={}", "search.weighted_bon={}"],
    [GSM8K, "search.bon=null"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", SHAPES, ids=" ".join)
def test_the_names_that_are_told_without_a_plan_are_the_plans(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = load_config(None, overrides)
    assert stage_names(config) == names(plan(tmp_path, None, *overrides))
    with_reference = names(plan(tmp_path, "reference", *overrides)) if not any(
        "models.reference" in one for one in overrides
    ) else []  # fmt: skip
    assert set(with_reference) <= set(stage_names(config, "reference"))


def test_samples_that_nothing_reads_are_not_drawn(tmp_path: Path) -> None:
    """They make the held-out pairs of the help desk; GSM8K's pairs come with the data."""
    assert samples_per_prompt(load_config(None, [GSM8K, "search.bon=null"])) == 0
    assert "samples" not in names(plan(tmp_path, None, GSM8K, "search.bon=null"))
    without_bon = ["search.bon=null", "evaluation.pairs_per_prompt=3"]
    assert samples_per_prompt(load_config(None, without_bon)) == 6
    assert "samples" in names(plan(tmp_path, None, *without_bon))
    assert samples_per_prompt(load_config(None, [GSM8K, "search.bon.n=12"])) == 12


def test_given_models_leave_the_stages_out_that_would_make_them(
    tmp_path: Path, word_policy: str, word_reward: str
) -> None:
    given = [f"models.policy={word_policy}", f"models.orm={word_reward}"]
    found = plan(tmp_path, "prm_sst", *given, f"models.reference={word_reward}")
    assert names(found) == ["data", "pairs", "partial_pairs", "variants/prm_sst"]


def test_the_disk_that_a_training_writes_is_known_before_it_starts(
    tmp_path: Path, word_policy: str, word_reward: str
) -> None:
    given = [f"models.policy={word_policy}", f"models.orm={word_reward}"]
    found = plan(tmp_path, "prm_sst", *given, "storage.free_gib=1.0e+9")
    data, pairs, reference, partial, prm = found.steps
    workspace = found.workspace(Console(quiet=True))
    for step, start in ((reference, word_policy), (prm, word_reward)):
        weights = (Path(start) / "model.safetensors").stat().st_size
        written = (written_gib(workspace, step) - SMALL_GIB) * 2**30
        assert written == pytest.approx(2 * weights, rel=0.1)
    assert {written_gib(workspace, step) for step in (data, pairs, partial)} == {SMALL_GIB}
    with pytest.raises(
        StageFailed, match=r"data: .* GiB of disk are free .*storage.free_gib = 1e\+09"
    ):
        perform(workspace, data, "data")


def test_the_reference_can_be_trained_where_no_variant_asks_for_it(tmp_path: Path) -> None:
    only = [f"variants.{name}=null" for name in ("orm_continued", "prm_tlt", "prm_no_reference")]
    overrides = [*only, "variants.prm_sst.objective=dpo"]
    assert "reference" not in names(plan(tmp_path, None, *overrides))
    assert names(plan(tmp_path, "reference", *overrides)) == NEEDED["reference"]


def test_what_is_forced_again_takes_all_of_the_sweep_that_reads_it(tmp_path: Path) -> None:
    forced = {step.stage.name for step in plan(tmp_path, "orm").after("orm")}
    assert forced >= {"orm", "partial_pairs", "variants/prm_sst", "cells/bon/orm", "evaluation"}
    assert not forced & {"data", "policy", "pairs", "reference"}


@pytest.mark.parametrize(
    ("reference", "test", "expected"), [(3, 2, ["r0", "r1"]), (0, 3, ["t0", "t1"]), (0, 0, [])]
)
def test_held_out_pairs_are_anothers_else_the_tests_else_none(
    tmp_path: Path, reference: int, test: int, expected: list[str]
) -> None:
    files = []
    for name, count in {"reference": reference, "test": test}.items():
        pairs = [
            PreferencePair(f"{name[0]}{i}", Prompt(str(i), ()), "a", "b") for i in range(count)
        ]
        files.append(tmp_path / f"pairs_{name}.parquet")
        write_pairs(files[-1], pairs)
    assert [pair.pair_id for pair in held_out_pairs(files, 2)] == expected
    files[-1].unlink()
    assert len(list(held_out_pairs(files, 2))) == min(reference, 2)


def test_a_cells_stage_names_its_method_and_scorer() -> None:
    cells = cell_names(load_config(None, []))
    assert CellName("base", None) in cells and CellName("cbs", "orm") in cells
    assert [CellName.of_stage(cell.stage) for cell in cells] == cells


def test_a_dry_run_shows_what_is_forced_as_to_do(tmp_path: Path) -> None:
    whole = plan(tmp_path, None)
    for step in whole.steps:
        with whole.store.writing(step.stage, {}):
            pass
    states = []
    for forced in ((), [step.stage.name for step in whole.after("orm")]):
        console = Console(record=True, width=200, file=io.StringIO())
        print_plan(whole, console, forced)
        rows = [line.split("│") for line in console.export_text().splitlines() if "│" in line]
        states.append({row[1].strip(): row[3].strip() for row in rows})
    assert set(states[0].values()) == {"done"}
    assert {name for name, state in states[1].items() if state == "to do"} == {
        step.stage.name for step in whole.after("orm")
    }
    assert states[1]["policy"] == "done"


def test_prefix_scores_do_not_depend_on_who_judges(tmp_path: Path) -> None:
    overrides = [None, "evaluation.agreement_grid=[5, 10]"]
    keys = []
    for override in overrides:
        steps = plan(tmp_path, None, *([override] if override else [])).steps
        keys.append({step.stage.name: step.stage for step in steps})
    first, other = (stages["agreement/orm"] for stages in keys)
    assert "judges" not in str(first.config["evaluation"])
    assert "judges" in str(keys[0]["evaluation"].config["evaluation"])
    assert first.key != other.key  # what the scores do depend on


def test_a_judge_changes_the_key_of_the_evaluation_only(tmp_path: Path) -> None:
    config = load_config(None, [])
    judged = config.evaluation.model_copy(update={"judges": (TaskGrade(),)})
    plans = [
        Plan(each, Store(str(tmp_path)))
        for each in (config, config.model_copy(update={"evaluation": judged}))
    ]
    before, after = ({step.stage.name: step.stage for step in each.steps} for each in plans)
    assert [name for name in before if before[name].key != after[name].key] == ["evaluation"]
    judge_module = TaskGrade.__module__
    assert judge_module in after["evaluation"].components
    assert judge_module not in before["evaluation"].components
