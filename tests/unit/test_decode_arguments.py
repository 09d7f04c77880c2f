"""The command line of jobs/decode.py: all methods in the help, fields that are no options."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from support import reward_kinds
from typer.testing import CliRunner

from jobs import decode, score
from jobs.batch.decode_options import DecodeOptions
from jobs.command_line.method_fields import method_fields
from orchestrator.search.method import METHODS


def said_by(app: Any, *arguments: str) -> str:
    """What a job says that ends with 2, on one line."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2, done.output
    return " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())


def test_the_help_names_every_method_that_there_is() -> None:
    shown = CliRunner().invoke(decode.app, ["--help"], env={"COLUMNS": "400", "NO_COLOR": "1"})
    assert all(re.search(rf"\b{name}\b", shown.output) for name in METHODS)
    for option in ("--beta", "--step-delimiter", "--step-tag"):
        assert option in shown.output


def test_help_and_a_field_given_as_an_option_wait_for_no_model_library() -> None:
    code = (
        "import sys, runpy\n"
        "sys.argv = ['decode.py', *{arguments!r}]\n"
        "try: runpy.run_path({job!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])\n"
    )
    for arguments in (["--help"], ["--policy", "p", "--beams", "4"]):
        program = code.format(arguments=arguments, job=str(ROOT / "jobs" / "decode.py"))
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--beams", "4"], "beams=4"),
        (["--beams=4"], "beams=4"),
        (["--target-reward", "-1.5"], "target_reward=-1.5"),
        (["--n"], "n=VALUE"),
    ],
)
def test_a_field_among_the_options_is_answered_by_how_it_is_written(
    given: list[str], written: str
) -> None:
    always = ["--policy", "p", "--method", "cbs", "--prompts", "x.jsonl", "--out", "out"]
    name = given[0].partition("=")[0]
    expected = f"{name} is a field of the method, not an option: write {written}"
    assert expected in said_by(decode.app, *always, *given)


def test_any_other_option_is_answered_as_ever() -> None:
    assert "No such option: --bems" in said_by(decode.app, "--bems", "4")
    assert "No such option: --beams" in said_by(score.app, "--beams", "4")
    assert {"beams", "candidates", "chunk", "target_reward"} <= method_fields()


@pytest.fixture
def source(tmp_path: Path) -> str:
    place = tmp_path / "prompts.jsonl"
    place.write_text(json.dumps({"prompt": "order 1 ."}) + "\n")
    return str(place)


def options(source: str, policy: str, reward: str, **changed: Any) -> DecodeOptions:
    given: dict[str, Any] = {
        "method": "cbs", "fields": [], "max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0,
        "seed": 0, "actors": 1, "threads": 1, "max_actors": None, "max_concurrent": 4,
        "policy_cache_mib": None, "reward_cache_mib": None, "shard_rows": 4, "dtype": "float32",
        "device": "cpu", "engine": "auto", "force": False, "out": "out",
        "policy": policy, "reward": reward, "prompts": source,
    }  # fmt: skip
    return DecodeOptions(**{**given, **changed})


def test_a_log_ratio_has_its_factor_and_it_decides_the_responses(
    source: str, word_policy: str
) -> None:
    ratio = options(source, word_policy, word_policy, base=word_policy, beta=0.05)
    ratio.prompt_reader()
    assert ratio.spec is not None and ratio.spec.beta == 0.05
    assert ratio.identity()["--beta"] == 0.05
    assert ratio.engines.reward is not None and ratio.engines.reward.scorer.beta == 0.05


def test_steps_have_the_delimiter_and_the_tag_of_the_options(
    source: str, word_policy: str, tmp_path: Path
) -> None:
    trl = reward_kinds.MAKERS["token_classes"](tmp_path / "trl")
    tagged = options(source, word_policy, trl, step_delimiter="\\n\\n", step_tag="\\n")
    tagged.prompt_reader()
    assert tagged.spec is not None
    assert (tagged.spec.step_delimiter, tagged.spec.step_tag) == ("\n\n", "\n")
    assert tagged.identity()["--step-delimiter"] == "\\n\\n"


REFUSED: list[tuple[list[str], str]] = [
    (["--beta", "2"], "--beta = 2.0: only a log ratio uses it; valid: together with --base"),
    (["--beta", "0", "--base", "{policy}", "--kind", "log_ratio"], "--beta = 0.0: valid: a num"),
    (["--step-tag", "+"], "--step-tag = '+': a reward model of kind sequence has no step tag"),
    (["--step-delimiter", "."], "--step-delimiter = '.': it has no effect: a reward model of kind"
     " sequence scores steps only with --aggregation"),
    (["--step-delimiter", "", "--aggregation", "min"],
     "--step-delimiter = '': empty; valid: a nonempty text"),
    (["--preset", "none-such"], "preset"),
    (["--format", "tag"], "--format = 'tag': valid: name=value"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), REFUSED)
def test_what_a_reward_model_does_not_read_is_refused(
    given: list[str], expected: str, source: str, word_policy: str, word_reward: str, tmp_path: Path
) -> None:
    words = [word.format(policy=word_policy) for word in given]
    always = ["--policy", word_policy, "--reward", word_reward, "--method", "cbs"]
    more = ["--prompts", source, "--out", str(tmp_path / "out"), "--max-new-tokens", "9"]
    said = said_by(decode.app, *always, *more, *words)
    assert expected in said and said.startswith("error: --") and said.count("error: ") == 1
    assert not (tmp_path / "out").exists()


def test_the_beta_of_cards_is_a_field(source: str, word_policy: str, word_reward: str) -> None:
    arguments = (
        "--policy", word_policy, "--reward", word_reward, "--method", "cards",
        "--prompts", source, "--out", "out", "--beta", "0.5", "target_reward=1",
    )  # fmt: skip
    said = said_by(decode.app, *arguments)
    assert "method.beta: missing" in said and "valid: beta=NUMBER" in said
    said = " ".join(said_by(decode.app, *arguments, "beta=1").split())
    assert "valid: --beta together with --base, or beta=0.5 for the field of cards" in said


def test_without_scores_nothing_reads_what_is_said_of_a_reward_model(
    source: str, word_policy: str, tmp_path: Path
) -> None:
    for option in ("--beta", "--step-delimiter", "--step-tag"):
        said = said_by(
            decode.app, "--policy", word_policy, "--method", "base", "--prompts", source,
            "--out", str(tmp_path / "out"), option, "1",
        )  # fmt: skip
        assert f"{option} = " in said and "it has no effect: --method base needs" in said
