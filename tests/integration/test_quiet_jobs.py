"""What jobs write to standard error: nothing that is harmless, and all that is not."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, own_cluster
from support.reward_kinds import MAKERS
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from orchestrator.checkpoints.loading import load_model

SECONDS = 280


def run(job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / job), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=own_cluster()
    )


@pytest.mark.slow
def test_a_job_with_fewer_parts_than_actors_has_nothing_to_warn_of(
    word_reward: str, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"prompt": "order 1 .", "response": "thank you ."}) + "\n")
    done = run("score.py", "--input", str(source), "--output", str(tmp_path / "out"),
               "--reward", word_reward, "--actors", "2", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # A machine that is overloaded may have a real warning of its own.
    for harmless in ("restart will fail", "concurrent actors", "UNEXPECTED"):
        assert harmless not in done.stderr


def native(*lines: str, then: str = "") -> str:
    """What is shown of lines that native code writes to standard error, and of Python's."""
    program = (
        "import os, sys, warnings\n"
        "from jobs.command_line.quiet import filter_native_errors\n"
        "filter_native_errors()\n"
        f"for line in {lines!r}: os.write(2, line.encode() + b'\\n')\n"
        "warnings.warn('a warning of Python')\n"
        f"{then}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    return done.stderr


@pytest.mark.parametrize("then", ["", "os.abort()", "os._exit(1)", "raise ValueError('an error')"])
def test_a_real_error_of_native_code_is_shown_even_where_it_is_the_last(then: str) -> None:
    harmless = (
        "[2026-11-30 22:55:24,087 E 8006 8006] core_worker.cc:2465: Actor with class name: 'M' and"
        " ID: '1' has constructor arguments in the object store and max_restarts > 0. If the"
        " arguments go out of scope or are lost, the actor restart will fail."
    )
    real = "[2026-11-30 22:55:24,087 E 8006 8006] core_worker.cc:99: the raylet is gone \u00e9"
    said = native(harmless, real, harmless, "no line end of it", then=then)
    assert real in said and "no line end of it" in said and "a warning of Python" in said
    assert "restart will fail" not in said
    assert ("ValueError: an error" in said) == ("raise" in then)


def test_filtering_twice_and_without_a_standard_error_does_no_harm() -> None:
    assert "once" in native("once", then="filter_native_errors(); filter_native_errors()")
    imported = "from jobs.command_line.quiet import *"
    code = f"import sys; sys.stderr = None\n{imported}\nfilter_native_errors()"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize("kind", ["value_head", "sequence"])
def test_weights_that_a_class_leaves_out_are_no_news_and_other_warnings_are(
    kind: str, tmp_path: Path
) -> None:
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, ear = transformers_logging.get_logger("transformers.modeling_utils"), Ear()
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_warning()
    logger.addHandler(ear)
    try:
        checkpoint = MAKERS[kind](tmp_path / kind)
        AutoModel.from_pretrained(checkpoint)
        assert any("LOAD REPORT" in text for text in heard), "transformers reports it by itself"
        heard.clear()
        load_model(AutoModel, checkpoint, torch.float32)
        logger.warning("a real one")
        assert heard == ["a real one"]
    finally:
        logger.removeHandler(ear)
        transformers_logging.set_verbosity(level)
