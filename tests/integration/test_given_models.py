"""The sweep on one's own pairs with models of other kinds: encoder, UltraRM, step tags, ratios."""

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SMOKE_SECONDS, own_cluster
from support import reward_kinds

from orchestrator.tasks.helpdesk.agents import demonstration, prompts

PAIRS = 240
SCORERS = ("orm", "step_tags", "ultra", "reference", "dpo", "ratio")
TINY = (
    "{hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2,"
    " num_key_value_heads: 1, max_position_embeddings: 1024}"
)


def write_pairs(file: Path) -> None:
    rows = []
    texts = [demonstration(prompt, 0) for prompt in prompts(PAIRS + 1, 0)]
    for number, (one, other) in enumerate(pairwise(texts)):
        question = list(one.prompt.messages)
        if number % 40 == 7:  # past the encoder's context
            question = [{"role": "user", "content": question[0]["content"] * 9}]
        rows.append({"prompt": question, "chosen": one.response, "rejected": other.response})
    file.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
@pytest.mark.timeout(SMOKE_SECONDS)
def test_models_of_every_kind_guide_every_search(word_policy: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    encoder = reward_kinds.deberta(tmp_path / "deberta")
    overrides = {
        "output_dir": tmp_path / "out",
        "data.pairs": tmp_path / "pairs.jsonl",
        "data.test_prompts": 12,
        "models.architecture": TINY,
        "models.reference": encoder,
        "training.policy.max_steps": 4,
        "training.policy.warmup_steps": 0,
        "variants.prm_tlt": "null",
        "variants.prm_no_reference": "null",
        "variants.orm_continued": "null",
        "variants.step_tags.checkpoint": reward_kinds.process_head(tmp_path / "process"),
        "variants.ultra.checkpoint": reward_kinds.ultra_rm(tmp_path / "ultra"),
        "variants.dpo": "{objective: dpo, aggregation: min, step_delimiter: ' .'}",
        "variants.ratio": f"{{objective: density_ratio, checkpoint: {word_policy},"
                          f" base: {word_policy}}}",
        "search.scorers": f"[{','.join(SCORERS)}]",
        "search.bon.prompts": 4, "search.cbs.prompts": 3, "search.cards.prompts": 3,
        "decoding.max_new_tokens": 24,
    }  # fmt: skip
    job, config = ROOT / "jobs" / "full_sweep.py", ROOT / "configs" / "hh_small.yaml"
    done = subprocess.run(
        [sys.executable, str(job), "--config", str(config),
         *(f"{name}={value}" for name, value in overrides.items())],
        env=own_cluster(), capture_output=True, text=True, timeout=SMOKE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    cells = {(cell["method"], cell["scorer"]) for cell in summary["cells"]}
    assert cells >= {(m, scorer) for m in ("bon", "cbs", "cards") for scorer in SCORERS}
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    reasons = Counter(row["reason"] for row in rejects if row["source"].startswith("pairs"))
    assert (
        sum(n for reason, n in reasons.items() if reason.startswith("too long for reference: "))
        >= 3
    )
