"""What the config alone cannot tell of a file is told before anything is trained on it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from jobs.sweep.model_inputs import policy_inputs
from jobs.sweep.plan import Plan
from jobs.sweep.runner import Runner, StageFailed, perform
from jobs.sweep.runtime.workspace import Workspace
from jobs.sweep.steps import policy
from orchestrator.config.counts import too_long_warmups
from orchestrator.config.load import load_config
from orchestrator.data.context_length import check_any_usable
from orchestrator.data.rejects import conversation_too_long, prompt_too_long
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.store import Store

TINY = (
    "{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4,"
    " num_key_value_heads: 2, max_position_embeddings: 64}"
)


def make_plan(
    folder: Path, rejected: str, prompt: str = "x", *overrides: str
) -> tuple[Plan, Workspace]:
    """A plan on forty pairs of a file, its data read."""
    rows = [
        {"prompt": f"{prompt} {i}", "chosen": f"yes {i}", "rejected": f"{rejected} {i}"}
        for i in range(40)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        f"data={{task: hh_rlhf, pairs: {file}, test_prompts: 4}}", "models.vocabulary=261",
        f"models.architecture={TINY}", "decoding.max_new_tokens=16",
        "training.policy={max_steps: 4, warmup_steps: 0}", *overrides,
    ]  # fmt: skip
    plan = Plan(load_config(None, given), Store(str(folder / "out")))
    workspace = plan.workspace(Console(quiet=True))
    perform(workspace, plan.steps[0], "data")
    return plan, workspace


@pytest.mark.parametrize(
    ("prompt", "rejected", "said"),
    [
        (
            "p" * 90,
            "no",
            r"none of the \d+ demonstrations is usable; last reason: too long for policy: prompt "
            "and response take more than 64 tokens",
        ),
        ("x", "n" * 90, r"none of the \d+ pairs for orm is usable; last reason: too long for pol"),
        (
            "p" * 45,
            "no",
            r"none of the 4 test prompts is usable; last reason: prompt too long for policy: more "
            r"than \d+ tokens; its context is 64, of which \d+ are reserved for the response",
        ),
    ],
)
def test_texts_of_which_none_fits_end_the_run_before_the_policy_is_trained(
    tmp_path: Path, prompt: str, rejected: str, said: str
) -> None:
    plan, workspace = make_plan(tmp_path, rejected, prompt)
    policy = next(step for step in plan.steps if step.stage.name == "policy")
    with pytest.raises(StageFailed, match=f"{said}.*; increase models"):
        perform(workspace, policy, "policy")


def test_prompts_are_checked_before_the_policy_is_trained_also_if_it_will_sample_the_pairs(
    tmp_path: Path,
) -> None:
    small = ["data.demonstrations=8", "data.test_prompts=4"]
    for name in ("orm", "reference", "prm"):
        small += [f"data.{name}_pairs=4", f"training.{name}.warmup_steps=0"]
    plan = Plan(load_config(None, small), Store(str(tmp_path / "out")))
    workspace = plan.workspace(Console(quiet=True))
    perform(workspace, plan.steps[0], "data")
    inputs = replace(policy_inputs(workspace), max_new_tokens=10_000, trainer=None)  # type: ignore[arg-type]
    progress = ProgressBar(Console(quiet=True), "policy", None, "steps")
    with pytest.raises(ValueError, match=r"^none of the 4 test prompts is usable; last reason: "):
        policy.run(inputs, tmp_path, progress)


def test_one_that_fits_is_enough() -> None:
    check_any_usable("pairs", [])
    check_any_usable("pairs", ["long", None, "long"])
    with pytest.raises(ValueError, match=r"^none of the 2 pairs is usable; last reason: equal$"):
        check_any_usable("pairs", iter(["long", "equal"]))
    for long in (prompt_too_long(5, "orm", 6, 2, 0), conversation_too_long(5, "orm", 4)):
        with pytest.raises(ValueError, match=r"too long for orm: .* 4 tokens.*; increase models"):
            check_any_usable("pairs", iter(["equal", long]))


def test_a_warm_up_is_compared_with_the_rows_of_the_file(tmp_path: Path) -> None:
    plan, workspace = make_plan(
        tmp_path, "no", "x", "training.orm={batch_size: 2, warmup_steps: 50}"
    )
    runner = Runner(plan, workspace, None, "")  # type: ignore[arg-type]  # MLflow hears nothing of it
    with pytest.raises(
        StageFailed, match=r"training\.orm\.warmup_steps = 50: longer than .* \d steps"
    ):
        runner._check_warmups(plan.steps[0])
    assert too_long_warmups(plan.config, {"orm": 100}) == []
    assert len(too_long_warmups(plan.config, {"orm": 98, "policy": 3})) == 1
