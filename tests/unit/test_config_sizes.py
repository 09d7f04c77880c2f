"""Counts that do not go together, and sizes that no machine at hand has room for."""

from pathlib import Path

import psutil
import pytest
from ray._private.utils import read_ray_address

from orchestrator.config.load import ROOT, ConfigError, load_config
from orchestrator.config.sizes import check_sizes, demands, sized
from orchestrator.tasks.helpdesk import agents
from orchestrator.tasks.helpdesk.extent import (
    DIFFERENT_PROMPTS,
    LONGEST_PROMPT,
    SHORTEST_PROMPT,
    prompt_counts,
)

# Overrides -> what the message begins with, and a further piece.
TOGETHER = {
    ("models.architecture.hidden_size=132", "models.architecture.num_attention_heads=12"): (
        "models.architecture.hidden_size = 132: 12 heads of dimension 11", "valid: for example 144",
    ),
    ("models.architecture.hidden_size=4",): ("models.architecture.hidden_size = 4: 4 heads of d",
                                             "an even dimension"),
    ("models.architecture.hidden_size=130",): ("models.architecture.hidden_size = 130", "multiple"),
    ("data.test_prompts=100000000",): ("data.test_prompts = 100000000", "23,040,000 different"),
    ("data.demonstrations=2147483647",): ("data.demonstrations = 2147483647", "at most 2,304,000"),
    ("models.architecture.max_position_embeddings=80",): (
        "models.architecture.max_position_embeddings = 80: a prompt has up to 24", "at least 88",
    ),
    ("decoding.max_new_tokens=256",): (
        "decoding.max_new_tokens = 256: must leave room",
        "(256); valid: at most 232, or a larger max_position_embeddings",
    ),
    ("models.architecture.max_position_embeddings=20",): (
        "decoding.max_new_tokens = 64: must leave room",
        "(20); valid: a larger max_position_embeddings",
    ),
    ("training.policy.max_steps=8",): (
        "training.policy.warmup_steps = 20: longer than the training, which has 8 steps",
        "valid: at most 8",
    ),
    ("data.orm_pairs=64",): ("training.orm.warmup_steps = 10: longer", "has 4 steps"),
    ("data.prm_pairs=30",): ("training.prm.warmup_steps = 10: longer", "valid: at most 5"),
    ("training.implicit.warmup_steps=999", "variants.dpo.objective=dpo"): (
        "training.implicit.warmup_steps = 999: longer", "has 282 steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("overrides", TOGETHER, ids=" ".join)
def test_counts_that_do_not_go_together_are_named(overrides: tuple[str, ...]) -> None:
    begin, piece = TOGETHER[overrides]
    only = ["variants.prm_tlt=null"] if "data.prm_pairs=30" in overrides else []
    with pytest.raises(ConfigError) as error:
        load_config(None, [*overrides, *only])
    text = str(error.value)
    assert text.startswith(begin) and piece in text, text
    assert len(text.splitlines()) == 1, text


def test_a_warm_up_of_a_training_that_the_run_has_not_is_not_counted() -> None:
    given = ["data={task: hh_rlhf, pairs: x.jsonl}", "training.policy.max_steps=8"]
    load_config(None, [*given, "models.policy=a/b"])
    with pytest.raises(ConfigError, match=r"training\.policy\.warmup_steps = 20"):
        load_config(None, given)
    load_config(None, ["training.implicit.warmup_steps=999999"])
    load_config(None, ["data.orm_pairs=64", "models.orm=a/b"])
    load_config(None, ["training.policy={max_steps: 20, warmup_steps: 20}"])


def test_the_worlds_prompts_are_as_many_and_as_long_as_is_said() -> None:
    lengths = [len(p.messages[0]["content"].split()) for p in agents.prompts(2_000, 7)]
    assert (min(lengths), max(lengths)) == (SHORTEST_PROMPT, LONGEST_PROMPT)
    # Names, orders, moods; products and problems, with another product before, behind or not.
    assert DIFFERENT_PROMPTS == 8 * 1_000 * 4 * (8 * 6 + 8 * 6 * 7 * 2)
    assert prompt_counts(5, [100, 10], 7) == [5, 102, 10, 7]


def test_more_prompts_than_there_are_end_at_once() -> None:
    with pytest.raises(ValueError, match="the world has 23,040,000 different ones"):
        agents.prompts(DIFFERENT_PROMPTS + 1, 0)


TOO_LARGE = {
    "search.cbs.beams=1000000000": ("search.cbs.beams = 1000000000: 4,000,000,000 candidates of",
                                    "of memory"),
    "search.tbs.candidates=100000000": ("search.tbs.candidates = 100000000: ", "of memory"),
    "search.bon.n=1000000000": ("search.bon.n = 1000000000: ", "candidates of each of 300 prompts"),
    "search.general={sequences: 1000000000}": ("search.general.sequences = ", "of memory"),
    "search.step_beam={beams: 1000000000, delimiter: .}": ("search.step_beam.beams = ", "memory"),
    "search.args.k=2000000000": ("search.args.k = 2000000000: ", "of memory"),
    "models.architecture.hidden_size=4000000": ("models.architecture.hidden_size = 4000000: its",
                                                "of memory"),
    "models.architecture.num_hidden_layers=2000000000": ("models.architecture.num_hidden_layers",
                                                         "of memory"),
    "models.architecture.intermediate_size=2000000000": ("models.architecture.intermediate_size",
                                                         "of memory"),
    "training.policy.max_steps=2000000000": ("training.policy.max_steps = 2000000000: its rows",
                                             "of memory"),
    "training.orm.epochs=2000000000": ("training.orm.epochs = 2000000000: its rows", "of memory"),
    "evaluation.bootstrap_samples=2000000000": ("evaluation.bootstrap_samples = ", "of memory"),
    "cluster.policy_cache_mib=2000000000": ("cluster.policy_cache_mib = 2000000000: the cached k",
                                             "of an actor need at least"),
}  # fmt: skip


@pytest.mark.parametrize("override", TOO_LARGE)
def test_what_no_memory_or_disk_holds_is_refused(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    begin, piece = TOO_LARGE[override]
    with pytest.raises(ConfigError) as error:
        check_sizes(load_config(None, [override]), tmp_path)
    text = str(error.value)
    assert text.startswith(begin) and piece in text and text.endswith("; valid: a smaller value"), (
        text
    )


def test_the_shipped_configs_ask_for_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HH_RLHF_PAIRS", "GSM8K_TRAIN", "GSM8K_PAIRS", "GSM8K_TEST"):
        monkeypatch.setenv(name, "x.jsonl")
    for file in (ROOT / "configs").glob("*.yaml"):
        config = load_config(file)
        assert max(demand.bytes for demand in demands(config)) < 2**30, file
        check_sizes(config, tmp_path)


def test_a_cluster_or_a_card_is_not_measured_by_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    mib = 2 * psutil.virtual_memory().total // 2**20
    asked = f"cluster.policy_cache_mib={mib}"
    with pytest.raises(ConfigError):
        check_sizes(load_config(None, [asked]), tmp_path)
    check_sizes(load_config(None, [asked, "cluster.actor_gpus=1"]), tmp_path)
    address_file = tmp_path / "ray" / "ray_current_cluster"  # of `ray start` on this machine
    address_file.parent.mkdir()
    address_file.write_text("10.0.0.1:6379")
    assert read_ray_address() == "10.0.0.1:6379"
    check_sizes(load_config(None, [asked]), tmp_path)
    address_file.unlink()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_sizes(load_config(None, [asked]), tmp_path)
    with pytest.raises(ConfigError):
        check_sizes(load_config(None, ["search.cbs.beams=1000000000"]), tmp_path)


def test_bytes_are_shown_in_a_unit_that_is_read_easily() -> None:
    assert [sized(n) for n in (5, 2**20, 3 * 2**39)] == ["5.0 bytes", "1.0 MiB", "1.5 TiB"]
    assert sized(2.0**70) == "1,048,576.0 PiB"
