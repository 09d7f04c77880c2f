"""What the config alone cannot tell of a file is told before anything is trained on it."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from jobs.sweep.plan import Plan
from jobs.sweep.runner import Runner, StageFailed, perform
from jobs.sweep.runtime.workspace import Workspace
from orchestrator.config.counts import too_long_warmups
from orchestrator.config.load import load_config
from orchestrator.data.fitting import check_some_fit
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
            r"none of the \d+ demonstrations fits: too long for policy: prompt and "
            "response take more than 64 tokens;",
        ),
        ("x", "n" * 90, r"none of the \d+ pairs for orm fits: too long for policy: "),
        (
            "p" * 45,
            "no",
            r"none of the 4 test prompts fits: prompt too long for policy: more than \d+ "
            r"tokens; its context is 64, of which \d+ are reserved for the response",
        ),
    ],
)
def test_texts_of_which_none_fits_end_the_run_before_the_policy_is_trained(
    tmp_path: Path, prompt: str, rejected: str, said: str
) -> None:
    plan, workspace = make_plan(tmp_path, rejected, prompt)
    policy = next(step for step in plan.steps if step.stage.name == "policy")
    with pytest.raises(StageFailed, match=said):
        perform(workspace, policy, "policy")


def test_one_that_fits_is_enough() -> None:
    check_some_fit("pairs", [])
    check_some_fit("pairs", ["long", None, "long"])
    with pytest.raises(ValueError, match="none of the 2 pairs fits: longer; increase"):
        check_some_fit("pairs", iter(["long", "longer"]))


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
