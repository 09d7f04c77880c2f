"""The whole sweep on a real policy: SmolLM2, and the reward models that are trained from it."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, own_cluster
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.checkpoints.weights import Weights
from orchestrator.data.tables import read_prompts
from orchestrator.fields.yaml_text import read_yaml
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.method import methods_in_order

SHARED = Path(os.environ.get("SHARED_DATA", ROOT / ".." / "shared" / "data"))
PAIRS = SHARED / "hh_rlhf" / "harmless_base_pairs.jsonl"
SECONDS = 3_600  # on two cores it takes a quarter of that
ROWS, ORM_PAIRS, PROMPTS = 294, 200, 8
SHORTEST = 40  # characters of a response that is more than a word
METHODS = {
    name: kind
    for name, kind in methods_in_order().items()
    if kind.needs_scorer and not kind.needs_answers
}
SCORERS = ("orm", "prm_sst")

pytestmark = [pytest.mark.slow, pytest.mark.samples, pytest.mark.timeout(SECONDS + 60)]


def short_pairs(file: Path) -> None:
    """The real pairs with the fewest characters, of responses that say something."""
    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    rows = [row for row in rows if min(len(row["chosen"]), len(row["rejected"])) >= SHORTEST]
    file.write_text("".join(json.dumps(row) + "\n" for row in sorted(rows, key=characters)[:ROWS]))


def characters(row: dict[str, Any]) -> int:
    texts = [*(message["content"] for message in row["prompt"]), row["chosen"], row["rejected"]]
    return sum(map(len, texts))


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=own_cluster(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def sweep(smollm2: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of the main job on configs/smollm2_small.yaml."""
    if not PAIRS.is_file():
        pytest.skip(f"{PAIRS} is not here; SHARED_DATA names the folder of real data")
    folder = tmp_path_factory.mktemp("smollm2")
    config = ROOT / "configs" / "smollm2_small.yaml"
    written = read_yaml(config.read_text())
    assert isinstance(written, dict)
    configured = written["search"]
    short_pairs(folder / "pairs.jsonl")
    command = [
        sys.executable, str(ROOT / "jobs" / "full_sweep.py"),
        "--config", str(config), *(smallest(name) for name in METHODS if name not in configured),
        f"data.pairs={folder / 'pairs.jsonl'}", f"models.policy={smollm2}", "output_dir=out",
    ]  # fmt: skip
    print(run(command, folder))
    return folder / "out"


def smallest(name: str) -> str:
    """The override that runs a method with two of everything that it counts."""
    fields = ", ".join(f"{field}: 2" for field in METHODS[name].model_validate({}).candidate_counts)
    return f"search.{name}={{{fields}}}"


def stage(sweep: Path, name: str) -> Path:
    (folder,) = (sweep / "stages" / name).iterdir()
    return folder


def figures(sweep: Path, name: str) -> dict[str, float]:
    return dict(json.loads((stage(sweep, name) / "_DONE.json").read_text())["figures"]["metrics"])


def test_models_are_trained_from_it_on_real_pairs(sweep: Path, smollm2: str) -> None:
    assert figures(sweep, "pairs")["pairs_orm"] == ORM_PAIRS and figures(sweep, "orm")["steps"] == 8
    partial = figures(sweep, "partial_pairs")
    prm = figures(sweep, "variants/prm_sst")
    assert prm["partial_pairs"] == partial["sst_kept"] > 20
    weights = {name: Weights.of(str(stage(sweep, name) / "checkpoint"))
               for name in ("orm", "reference", "variants/prm_sst")}  # fmt: skip
    assert {one.parameters for one in weights.values()} == {Weights.of(smollm2).parameters + 576}
    heads = [one.tensor("score.weight") for one in weights.values()]
    assert all(head.abs().max() > 0 for head in heads), "the heads begin as zeros"
    assert not torch.equal(heads[0], heads[2]), "the PRM is more than its ORM"
    loss = json.loads((stage(sweep, "orm") / "_DONE.json").read_text())["figures"]["series"]["loss"]
    assert loss[0][1] == pytest.approx(math.log(2), abs=1e-4)


def test_every_method_answers_every_prompt_with_every_scorer(sweep: Path, smollm2: str) -> None:
    summary = json.loads((sweep / "summary.json").read_text())
    cells = {("base", None), ("greedy", None), *((m, s) for m in METHODS for s in SCORERS)}
    assert {(cell["method"], cell["scorer"]) for cell in summary["cells"]} == cells
    control = re.compile(r"<\|\w+\|>")
    for cell in summary["cells"]:
        name = f"cells/{cell['method']}/{cell['scorer'] or 'none'}"
        rows = pq.read_table(stage(sweep, name) / "responses.parquet").to_pylist()
        assert len(rows) == cell["prompts"] == PROMPTS
        assert not any(control.search(row["response"]) for row in rows)
        assert cell["scorer"] is None or all(math.isfinite(row["score"]) for row in rows)
        assert math.isfinite(cell["metrics"]["orm_reward"]["value"]) and cell["cost"]["flops"] > 0
    assert "SmolLM2" in (sweep / "report.html").read_text()


def test_the_greedy_cell_is_what_generate_writes(sweep: Path, smollm2: str) -> None:
    rows = pq.read_table(stage(sweep, "cells/greedy/none") / "responses.parquet").to_pylist()
    prompts = {p.prompt_id: p for p in read_prompts(stage(sweep, "data") / "prompts_test.parquet")}
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    for row in rows:
        inputs = tokenizer.apply_chat_template(
            list(prompts[row["prompt_id"]].messages), add_generation_prompt=True,
            return_tensors="pt", return_dict=True,
        )  # fmt: skip
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
        new = [token for token in ids[inputs["input_ids"].shape[1] :].tolist()
               if token != tokenizer.eos_token_id]  # fmt: skip
        assert row["token_ids"] == new


def test_the_scores_of_a_cell_are_those_of_its_checkpoint(sweep: Path) -> None:
    scorer = load_scorer(ScorerSpec(str(stage(sweep, "variants/prm_sst") / "checkpoint")), "closed")
    prompts = {p.prompt_id: p for p in read_prompts(stage(sweep, "data") / "prompts_test.parquet")}
    for method in ("bon", "cbs", "tbs"):
        rows = pq.read_table(stage(sweep, f"cells/{method}/prm_sst") / "responses.parquet")
        for row in rows.to_pylist()[:3]:
            prompt = scorer.chat.reward_prompt_ids(prompts[row["prompt_id"]].messages)
            ids = tuple(row["token_ids"])
            ((score,),) = scorer.prefix_scores([prompt], [ids], [[len(ids)]])
            assert np.isclose(row["score"], score, atol=1e-4), method


def test_the_docs_commands_answer_with_it_and_with_the_trained_prm(
    sweep: Path, smollm2: str, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "samples.md").read_text()
    greedy, guided = (commands(text, f"--method {name}") for name in ("greedy", "cbs"))
    guided = guided.replace("runs/smollm2_small", shlex.quote(str(sweep)))
    for command in (greedy, guided):
        run(["bash", "-ec", command.replace("jobs/", f"{shlex.quote(str(ROOT))}/jobs/")], tmp_path)
    (answer,) = map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    assert "Red" in answer["response"] and answer["score"] is None
    (answer,) = map(json.loads, (tmp_path / "guided.jsonl").read_text().splitlines())
    assert answer["response"] and math.isfinite(answer["score"])


def commands(text: str, part: str) -> str:
    """The indented block of a page that holds ``part``."""
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    (block,) = [block for block in blocks if part in block]
    return re.sub("^    ", "", block, flags=re.MULTILINE)
