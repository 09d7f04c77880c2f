"""The main job end to end on the smallest config: its outputs, its figures, and a second run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_smoke
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from orchestrator.config.load import ROOT
from orchestrator.conversations.chat import load_chat
from orchestrator.data.tables import read_pairs_table, read_prompts
from orchestrator.rewards.weights import reference_weights
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.tasks.helpdesk.rubric import grade

pytestmark = pytest.mark.timeout(1_200)

METHODS, SCORERS = ("bon", "args", "tbs", "cbs", "cards"), ("orm", "prm_sst")
CELLS = {("base", None), ("greedy", None), *((m, s) for m in METHODS for s in SCORERS)}
SMALL = ("args", "tbs", "cards")  # methods that run on half of the prompts there
COSTS = (
    "policy_tokens_sampled", "policy_tokens_computed", "reward_tokens_computed",
    "reward_tokens_reused", "policy_calls", "reward_calls", "seconds",
    "policy_flops", "reward_flops", "flops",
)  # fmt: skip


@pytest.fixture(scope="module")
def summary(smoke: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((smoke[0] / "summary.json").read_text())
    return found


def stage_file(folder: Path, stage: str, name: str) -> Path:
    (file,) = (folder / "stages" / stage).glob(f"*/{name}")
    return file


def responses(folder: Path, method: str, scorer: str | None) -> pa.Table:
    return pq.read_table(
        stage_file(folder, f"cells/{method}/{scorer or 'none'}", "responses.parquet")
    )


def runs(folder: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'helpdesk'")
    return list(client.search_runs([experiment.experiment_id], max_results=500))


def test_the_summary_has_every_cell_with_intervals_and_costs(summary: dict[str, Any]) -> None:
    assert {(cell["method"], cell["scorer"]) for cell in summary["cells"]} == CELLS
    assert len(summary["cells"]) == len(CELLS)
    for cell in summary["cells"]:
        assert cell["task"] == "helpdesk" and cell["seed"] == 0
        assert cell["prompts"] == (6 if cell["method"] in SMALL else 12)
        for name in ("resolved", "rubric", "win_tie", "orm_reward", "diversity", "length"):
            interval = cell["metrics"][name]
            assert interval["low"] <= interval["value"] <= interval["high"]
            assert interval["count"] == cell["prompts"]
        assert (cell["metrics"]["reward"] is None) == (cell["scorer"] is None)
        assert set(cell["cost"]) == set(COSTS)
        assert cell["cost"]["policy_tokens_computed"] > 0
        # ARGS takes the best of the likeliest tokens: it draws none.
        assert (cell["cost"]["policy_tokens_sampled"] > 0) == (cell["method"] != "args")
        assert (cell["cost"]["reward_tokens_computed"] > 0) == (cell["scorer"] is not None)


def test_the_tables_figures_are_those_of_the_responses(
    smoke: tuple[Path, str], summary: dict[str, Any]
) -> None:
    prompts = {p.prompt_id: p for p in
               read_prompts(stage_file(smoke[0], "data", "prompts_test.parquet"))}  # fmt: skip
    for cell in summary["cells"]:
        table = responses(smoke[0], cell["method"], cell["scorer"])
        rows = table.to_pylist()
        assert [row["prompt_id"] for row in rows] == list(prompts)[: len(rows)]
        grades = [grade(prompts[r["prompt_id"]].facts, r["response"], r["stop"] == "end")
                  for r in rows]  # fmt: skip
        measured: dict[str, list[float]] = {
            "resolved": [g.resolved for g in grades],
            "rubric": [g.value for g in grades],
            "length": [len(r["token_ids"]) for r in rows],
            "finished": [r["stop"] == "end" for r in rows],
        }
        for name, values in measured.items():
            assert cell["metrics"][name]["value"] == pytest.approx(np.mean(values), abs=1e-9)
        if cell["scorer"] is not None:
            value = cell["metrics"]["reward"]["value"]
            assert value == pytest.approx(np.mean([r["score"] for r in rows]), abs=1e-9)
        for name in COSTS:
            assert cell["cost"][name] == pytest.approx(np.mean([r[name] for r in rows]))


def _matrices(model: Any) -> int:
    """Entries of all matrices of a Llama, the embeddings once: looked up in, or the tied head."""
    return sum(p.numel() for p in model.parameters() if p.ndim == 2)


def test_every_response_pays_for_its_prompt_and_its_flops(smoke: tuple[Path, str]) -> None:
    """Whatever ran before it on the same actors."""
    folder = smoke[0]
    policy = AutoModelForCausalLM.from_pretrained(stage_file(folder, "policy", "checkpoint"))
    chat = load_chat(str(stage_file(folder, "policy", "checkpoint")))
    read = {p.prompt_id: len(chat.prompt_ids(p.messages)) for p in
            read_prompts(stage_file(folder, "data", "prompts_test.parquet"))}  # fmt: skip
    for method, scorer in CELLS:
        size = 0
        if scorer is not None:
            stage = "orm" if scorer == "orm" else f"variants/{scorer}"
            model = AutoModelForSequenceClassification.from_pretrained(
                stage_file(folder, stage, "checkpoint")
            )
            size = _matrices(model) - model.get_input_embeddings().weight.numel()
        for row in responses(folder, method, scorer).to_pylist():
            tokens = row["policy_tokens_computed"]
            assert tokens >= read[row["prompt_id"]] + row["length"] - (row["stop"] == "length")
            assert row["policy_flops"] == 2 * _matrices(policy) * tokens
            assert row["reward_flops"] == 2 * size * row["reward_tokens_computed"]
            assert row["flops"] == row["policy_flops"] + row["reward_flops"]
            if scorer is not None:
                assert row["reward_tokens_computed"] >= read[row["prompt_id"]] + row["length"]


def test_bon_leaves_its_curve_and_every_method_meets_it_at_equal_budget(
    smoke: tuple[Path, str], summary: dict[str, Any]
) -> None:
    cells = {(cell["method"], cell["scorer"]): cell for cell in summary["cells"]}
    for curve in summary["bon_curves"]:
        bon = cells["bon", curve["scorer"]]
        assert [point["n"] for point in curve["points"]] == [1, 2, 4, 8]
        last = curve["points"][-1]
        assert last["cost"] == pytest.approx(bon["cost"])
        for metric, value in last["metrics"].items():
            assert value == (None if value is None else pytest.approx(bon["metrics"][metric]))
        costs = [point["cost"]["flops"] for point in curve["points"]]
        assert costs == sorted(costs) and costs[0] < costs[-1] / 2
    assert [curve["scorer"] for curve in summary["bon_curves"]] == list(SCORERS)
    entries = {(e["method"], e["scorer"], e["budget"]): e for e in summary["equal_budget"]}
    assert set(entries) == {
        (m, s, b) for m in METHODS if m != "bon" for s in SCORERS for b in ("flops", "seconds")
    }
    for (method, scorer, budget), entry in entries.items():
        own = responses(smoke[0], method, scorer)
        curve = pq.read_table(stage_file(smoke[0], f"cells/bon/{scorer}", "curve.parquet"))
        rows = [r for r in curve.to_pylist() if r["prompt_id"] in own["prompt_id"].to_pylist()]
        means = {n: np.mean([r[budget] for r in rows if r["n"] == n]) for n in range(1, 9)}
        allowed = np.mean(own[budget].to_numpy())
        n = max((n for n, mean in means.items() if mean <= allowed), default=1)
        assert (entry["n"], entry["most"]) == (n, 8)
        assert entry["share"] == pytest.approx(means[n] / allowed)
        rubric = np.mean(own["rubric"].to_numpy())
        rubric -= np.mean([row["rubric"] for row in rows if row["n"] == n])
        assert entry["tests"]["rubric"]["difference"] == pytest.approx(rubric, abs=1e-9)
        assert entry["tests"]["rubric"]["count"] == len(own)


def test_a_score_of_the_search_is_that_of_the_response_scored_alone(
    smoke: tuple[Path, str],
) -> None:
    """Of responses whose text gives their tokens back: special tokens have none."""
    prompts = {p.prompt_id: p for p in
               read_prompts(stage_file(smoke[0], "data", "prompts_test.parquet"))}  # fmt: skip
    compared = 0
    for scorer in SCORERS:
        model = "orm" if scorer == "orm" else f"variants/{scorer}"
        engine = SequenceScorer(str(stage_file(smoke[0], model, "checkpoint")))
        for method in METHODS:
            for row in responses(smoke[0], method, scorer).to_pylist():
                ids = engine.chat.response_ids(row["response"])
                if list(ids) == row["token_ids"]:
                    prompt = engine.chat.prompt_ids(prompts[row["prompt_id"]].messages)
                    ((score,),) = engine.prefix_scores([prompt], [ids], [[len(ids)]])
                    assert row["score"] == pytest.approx(score, abs=1e-5), (method, scorer)
                    compared += 1
    assert compared >= 10


def test_report_figures_rejects_and_models_are_there(smoke: tuple[Path, str]) -> None:
    folder = smoke[0]
    report = (folder / "report.html").read_text()
    for word in ("<html", "prm_no_reference", "cards", "resolved", "At equal budget"):
        assert word in report
    assert pq.read_table(folder / "rejects.parquet").num_rows == 0
    figures = {file.stem for file in (folder / "figures").glob("*.png")}
    assert len(figures) >= 5 and {"quality_and_flops", "quality_and_seconds"} <= figures
    AutoModelForCausalLM.from_pretrained(stage_file(folder, "policy", "checkpoint"))
    for stage in ("orm", "reference", "variants/prm_sst", "variants/orm_continued"):
        model = AutoModelForSequenceClassification.from_pretrained(
            stage_file(folder, stage, "checkpoint")
        )
        assert model.config.num_labels == 1


def test_weights_of_the_partial_pairs_follow_from_their_reference_scores(
    smoke: tuple[Path, str],
) -> None:
    rows = pq.read_table(stage_file(smoke[0], "partial_pairs", "partial_pairs.parquet")).to_pylist()
    kept = 0
    for row in rows:
        gaps = np.subtract(row["reference_chosen"], row["reference_rejected"])
        assert row["weights"] == pytest.approx(reference_weights(gaps, 10.0).tolist())
        kept += sum(weight > 0 for weight in row["weights"])
    assert kept > 0
    pairs = [p.pair_id for p in
             read_pairs_table(stage_file(smoke[0], "pairs", "pairs_prm.parquet"))]  # fmt: skip
    places = [pairs.index(row["pair_id"]) for row in rows if row["truncation"] == "sst"]
    assert places == sorted(places), "the order of the pairs is kept"


def test_progress_names_every_stage_and_the_end_says_where_things_are(
    smoke: tuple[Path, str], summary: dict[str, Any]
) -> None:
    folder, printed = smoke
    stages = [stage["stage"] for stage in summary["stages"]]
    for number, stage in enumerate(stages, 1):
        assert re.search(rf"^\[{number}/{len(stages)}\] {stage}: [\d.]+ s", printed, re.MULTILINE)
    assert f"summary: {folder}/summary.json" in printed
    assert "mlflow ui --backend-store-uri" in printed


def test_mlflow_holds_a_run_of_the_sweep_and_one_child_a_stage(
    smoke: tuple[Path, str], summary: dict[str, Any]
) -> None:
    found = runs(smoke[0])
    (parent,) = [run for run in found if MLFLOW_PARENT_RUN_ID not in run.data.tags]
    children = [run for run in found if run is not parent]
    assert sorted(run.data.tags["stage"] for run in children) == sorted(
        stage["stage"] for stage in summary["stages"]
    )
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in found} == {"FINISHED"}
    by_stage = {run.data.tags["stage"]: run for run in children}
    for cell in summary["cells"]:
        run = by_stage[f"cells/{cell['method']}/{cell['scorer'] or 'none'}"]
        assert run.data.params["method"] == cell["method"]
        assert run.data.metrics["resolved"] == pytest.approx(cell["metrics"]["resolved"]["value"])
        assert {"resolved_low", "resolved_high", "win_tie", "cost_seconds", "cost_flops"} <= set(
            run.data.metrics
        )


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((folder / "stages").rglob("*"))
        if file.is_file()
    }


def test_the_readme_decodes_with_the_models_of_a_sweep(
    smoke: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code.count("runs/helpdesk") == 1
    exec(code.replace("runs/helpdesk", str(smoke[0])), {})
    printed = capsys.readouterr().out
    assert re.findall(r"^(prompt-\d) (?:end|length) -?\d", printed, re.MULTILINE) == [
        "prompt-0", "prompt-1",
    ]  # fmt: skip
    assert len(re.findall(r"tokens: [1-9]\d* drawn, [1-9]\d* scored", printed)) == 2


def test_a_second_run_finds_everything_done_and_changes_nothing(
    smoke: tuple[Path, str], summary: dict[str, Any]
) -> None:
    folder = smoke[0]
    before, tracked = bytes_of(folder), sorted(run.info.run_id for run in runs(folder))
    again = run_smoke(folder)
    assert again.returncode == 0, again.stderr
    for number, stage in enumerate(summary["stages"], 1):
        assert f"[{number}/{len(summary['stages'])}] {stage['stage']}: done" in again.stdout
    assert "Ray:" not in again.stdout, "nothing to do: no cluster is started"
    assert bytes_of(folder) == before
    assert sorted(run.info.run_id for run in runs(folder)) == tracked
    assert {run.info.status for run in runs(folder)} == {"FINISHED"}
    rerun = json.loads((folder / "summary.json").read_text())
    assert rerun["cells"] == summary["cells"]
