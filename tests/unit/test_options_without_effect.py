"""An option that is given and that nothing reads under the others ends a job with 2."""

import json
from pathlib import Path

import pytest
from support import reward_kinds
from typer.testing import CliRunner

from jobs import bench, decode, full_sweep, score, tune

ROW = {"prompt": "order 1 .", "response": "thank you ."}


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    return str(tmp_path / "rows.jsonl")


def message(app: object, *arguments: str) -> str:
    """What a job says that ends with 2 before anything is written, on one line."""
    done = CliRunner().invoke(app, list(arguments))  # type: ignore[arg-type]
    assert done.exit_code == 2, done.output
    return " ".join(done.output.replace("│", " ").split())


SCORE = [
    (["--seed", "1"], "--seed = 1: it has no effect: --prefixes whole draws no random numbers"),
    (["--seed", "0", "--prefixes", "tlt"], "--seed = 0: it has no effect: --prefixes tlt"),
    (["--step-delimiter", "."], "--step-delimiter = '.': it has no effect: a reward model of kind"),
    (["--position", "open", "--branch-memory-mib", "64"],
     "--branch-memory-mib = 64: it has no effect: open scores of kind sequence"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), SCORE)
def test_an_option_of_scoring_that_nothing_reads_is_refused(
    options: list[str], expected: str, source: str, word_reward: str, tmp_path: Path
) -> None:
    always = ["--input", source, "--output", str(tmp_path / "out"), "--reward", word_reward]
    said = message(score.app, *always, *options)
    assert expected in said and f"; valid: leave out {expected.split(' = ')[0]}" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (
            "process",
            ["--position", "open"],
            "--position = 'open': it has no effect: a scorer of kind step_tag scores",
        ),
        ("encoder", ["--branch-memory-mib", "64"], "--branch-memory-mib = 64: it has no effect"),
    ],
)
def test_an_option_that_the_kind_of_a_model_does_not_read_is_refused(
    kind: str, options: list[str], expected: str, source: str, tmp_path: Path
) -> None:
    make = {"process": reward_kinds.process_head, "encoder": reward_kinds.deberta}[kind]
    reward = make(tmp_path / "model")
    always = ["--input", source, "--output", str(tmp_path / "out"), "--reward", reward]
    assert expected in message(score.app, *always, *options)


DECODE = [
    ("base", ["--position", "open"], "--position = 'open': it has no effect: --method base needs"),
    ("vote", ["--reward-cache-mib", "9"], "--reward-cache-mib = 9: it has no effect: --method"),
    ("greedy", ["--temperature", "0.7"], "--temperature = 0.7: it has no effect: --method greedy"),
    ("greedy", ["--seed", "1"], "--seed = 1: it has no effect: --method greedy draws no"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "expected"), DECODE)
def test_an_option_of_decoding_that_the_method_does_not_read_is_refused(
    method: str, options: list[str], expected: str, source: str, word_policy: str, tmp_path: Path
) -> None:
    always = ["--policy", word_policy, "--prompts", source, "--out", str(tmp_path / "out")]
    assert expected in message(decode.app, *always, "--method", method, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        (
            "greedy",
            [],
            "--reward = '{reward}': it has no effect: --method greedy needs no scores",
        ),
        ("args", ["--top-p", "0.9"], "--top-p = 0.9: it has no effect: --method args uses the"),
        (
            "args",
            ["--seed", "1"],
            "--seed = 1: it has no effect: --method args draws no random numbers",
        ),
        ("args_stochastic", ["--temperature", "0.5"], "--temperature = 0.5: it has no effect"),
    ],
)
def test_a_reward_model_and_draws_that_the_method_does_not_use_are_refused(
    method: str, options: list[str], expected: str, source: str, word_policy: str,
    word_reward: str, tmp_path: Path,
) -> None:  # fmt: skip
    always = ["--policy", word_policy, "--reward", word_reward, "--prompts", source]
    more = ["--out", str(tmp_path / "out"), "--max-new-tokens", "9", "--method", method]
    assert expected.format(reward=word_reward) in message(decode.app, *always, *more, *options)


def test_a_cache_that_a_kind_of_reward_model_does_not_keep_is_refused(
    source: str, word_policy: str, tmp_path: Path
) -> None:
    encoder = reward_kinds.deberta(tmp_path / "deberta")
    said = message(
        decode.app, "--policy", word_policy, "--reward", encoder, "--prompts", source,
        "--out", str(tmp_path / "out"), "--max-new-tokens", "9", "--method", "cbs",
        "--reward-cache-mib", "9",
    )  # fmt: skip
    assert "--reward-cache-mib = 9: it has no effect: only a reward model of kind sequence" in said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["policy", "--metric", "final_loss", "--mode", "min"],
            "final_loss is computed only at the end",
        ),
        (["prm_sst", "training.evaluation_steps=null"], "training.evaluation_steps = null"),
    ],
)
def test_asha_is_refused_where_it_has_nothing_to_compare_early(
    options: list[str], reason: str, tmp_path: Path
) -> None:
    field = "training.policy.learning_rate" if "policy" in options else "weight.max"
    always = ["--space", f"{field}=choice(1,2)", f"output_dir={tmp_path}/out"]
    said = message(tune.app, *options, *always, "--scheduler", "asha")
    assert "--scheduler asha: it has no effect: " in said and reason in said


@pytest.mark.parametrize(
    ("only", "option"), [("sst5_open", "--rows"), ("pipeline", "--repeats")]
)  # fmt: skip
def test_an_option_of_a_benchmark_that_no_case_reads_is_refused(only: str, option: str) -> None:
    assert "has no effect with the cases of --only" in message(
        bench.app, "rewards", "--only", only, option, "5000"
    )


def test_settings_of_a_training_that_a_checkpoint_replaces_are_named_at_the_start(
    word_policy: str, tmp_path: Path
) -> None:
    arguments = ["--dry-run", f"models.policy={word_policy}", f"output_dir={tmp_path}/out"]
    done = CliRunner().invoke(full_sweep.app, arguments)
    assert done.exit_code == 0, done.output
    assert "not used: training.policy (models.policy is set)" in done.output
