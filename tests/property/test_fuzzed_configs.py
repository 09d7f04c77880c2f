"""Fuzzed configs, by the path of a dry run: a plan, or one error that says what is wrong."""

import time
from pathlib import Path

import pytest
from support import config_fuzzer

from jobs.command_line.exit_codes import BAD_CONFIG, OK
from jobs.sweep.main import sweep_main
from orchestrator.config.load import ConfigError, load_config, to_yaml

CONFIGS, PART = 1_000, 125
SECONDS = 5.0  # of processor time, for one
QUICK = 40
LONGEST = 4_000  # characters of a line of an error


def dry_run(folder: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> int:
    """The exit code; checks what is said and how long it takes."""
    file, overrides = config_fuzzer.written(folder, seed)
    started = time.process_time()
    try:
        code = sweep_main(file, overrides, True, [])
    except BaseException as error:
        raise AssertionError(f"config {seed}: {type(error).__name__}: {error}") from error
    seconds = time.process_time() - started
    said = capsys.readouterr()
    assert seconds < SECONDS, f"config {seed} took {seconds:.1f} s"
    assert code in (OK, BAD_CONFIG), f"config {seed}"
    if code == BAD_CONFIG:
        assert said.err.startswith("config error: "), f"config {seed}"
        lines = said.err.removeprefix("config error: ").strip().splitlines()
        assert lines and all(":" in line and len(line) < LONGEST for line in lines), f"{seed}"
    else:
        again = folder / "again.yaml"
        config = load_config(file, overrides)
        again.write_text(to_yaml(config))
        assert load_config(again) == config, f"config {seed} is not read back"
        assert "Plan" in said.out, f"config {seed}"
    return code


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """All that a plan imports, which is no config's time; a plan's keys read all sources once."""
    import orchestrator.config.models
    from jobs.sweep.main import make_plan

    assert callable(orchestrator.config.models.check_models)
    make_plan(load_config(None), None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a file of pairs, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("HH_RLHF_PAIRS", "GSM8K_TRAIN", "GSM8K_PAIRS", "GSM8K_TEST"):
        monkeypatch.setenv(name, "pairs.jsonl")
    monkeypatch.delenv("SMOLLM2", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    (tmp_path / "configs").mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("first", range(0, CONFIGS, PART))
def test_a_thousand_fuzzed_configs_are_plans_or_errors(
    first: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = [dry_run(place / "configs", seed, capsys) for seed in range(first, first + PART)]
    assert BAD_CONFIG in codes and OK in codes, "neither all bad nor all good"
    assert {path.name for path in place.iterdir()} == {"pairs.jsonl", "configs"}, "nothing is made"


def test_some_fuzzed_configs_are_plans_or_errors(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {dry_run(place / "configs", seed, capsys) for seed in range(5_000, 5_000 + QUICK)}
    assert codes == {OK, BAD_CONFIG}


def test_a_number_is_one_config() -> None:
    assert config_fuzzer.fuzzed(7) == config_fuzzer.fuzzed(7) != config_fuzzer.fuzzed(8)


def test_only_a_config_error_comes_out_of_loading(place: Path) -> None:
    """As above, of loading alone: what a library's user would have to catch."""
    for seed in range(6_000, 6_000 + 3 * QUICK):
        file, overrides = config_fuzzer.written(place / "configs", seed)
        try:
            load_config(file, overrides)
        except ConfigError as error:
            assert str(error), seed
