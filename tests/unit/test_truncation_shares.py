"""How many of the pairs each truncation takes: TLT all of them, unless it matches SST's number."""

from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.sweep.plan import Plan
from orchestrator.config.load import load_config
from orchestrator.config.tree import Config
from orchestrator.config.truncations import tlt_is_matched, truncations_of
from orchestrator.conversations.chat import load_chat
from orchestrator.data.partial_pairs import CutPairs, truncation_shares
from orchestrator.data.tables import write_pairs
from orchestrator.records import PreferencePair
from orchestrator.stages.store import Store
from orchestrator.tasks.helpdesk.agents import demonstration, prompts

PAIRS = 120
UNMATCHED = "variants.prm_tlt.match=null"
# Overrides -> whether some of the pairs are enough for every TLT variant.
MATCHED: dict[tuple[str, ...], bool] = {
    (): True,
    (UNMATCHED,): False,
    ("variants.more={truncation: tlt}",): False,  # one matched, one not
    ("variants.prm_tlt.match=prm_no_reference",): True,
    ("variants.all={truncation: tlt}", "variants.prm_tlt.match=all"): False,
}


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [demonstration(prompt, 0) for prompt in prompts(PAIRS + 1, 0)]
    pairs = [
        PreferencePair(f"pair-{i}", one.prompt, one.response, other.response)
        for i, (one, other) in enumerate(pairwise(rows))
    ]
    file = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(file, pairs)
    return file


def shares_of(config: Config, pairs_file: Path, reward: str) -> dict[str, float]:
    return truncation_shares(
        truncations_of(config.variants), tlt_is_matched(config.variants), pairs_file,
        load_chat(reward), config.partial.preset, config.partial.sst_k,
    )  # fmt: skip


def cut(pairs_file: Path, reward: str, *overrides: str) -> dict[str, list[dict[str, list[int]]]]:
    """The rows of each truncation, as the pipeline cuts them."""
    config = load_config(None, overrides)
    truncations, shares = truncations_of(config.variants), shares_of(config, pairs_file, reward)
    cutting = CutPairs(reward, shares, config.partial.preset, config.partial.sst_k, config.seed)
    rows = cutting(pq.read_table(pairs_file)).to_pylist()
    return {name: [row for row in rows if row["truncation"] == name] for name in truncations}


def cuts(rows: list[dict[str, list[int]]]) -> int:
    return sum(len(row["chosen_cuts"]) for row in rows)


def test_tlt_without_match_is_all_pairs_at_every_length(pairs_file: Path, word_reward: str) -> None:
    rows = cut(pairs_file, word_reward, UNMATCHED)["tlt"]
    pairs = pq.read_table(pairs_file).to_pylist()
    assert [row["pair_id"] for row in rows] == [pair["pair_id"] for pair in pairs]
    chat = load_chat(word_reward)
    for row, pair in zip(rows, pairs, strict=True):
        chosen, rejected = (chat.response_ids(pair[side]) for side in ("chosen", "rejected"))
        every = [
            t for t in range(1, max(len(chosen), len(rejected)) + 1) if chosen[:t] != rejected[:t]
        ]
        assert row["chosen_cuts"] == row["rejected_cuts"] == every


def test_matched_tlt_is_about_as_many_partial_pairs_as_sst(
    pairs_file: Path, word_reward: str
) -> None:
    rows = cut(pairs_file, word_reward)
    assert len(rows["sst"]) == PAIRS
    assert len(rows["tlt"]) < PAIRS / 2
    assert cuts(rows["sst"]) < 2 * cuts(rows["tlt"]) < 5 * cuts(rows["sst"])


def test_the_official_preset_is_matched_by_its_own_number_of_cuts(
    pairs_file: Path, word_reward: str
) -> None:
    rows = cut(pairs_file, word_reward, "partial.preset=official")
    paper = cut(pairs_file, word_reward)
    assert len(rows["tlt"]) > len(paper["tlt"])  # 6.5 cuts a pair, and not K = 5
    assert cuts(rows["tlt"]) > 0.8 * cuts(rows["sst"])


@pytest.mark.parametrize("overrides", MATCHED, ids=" ".join)
def test_tlt_is_cut_short_only_where_every_variant_of_it_matches(
    overrides: tuple[str, ...], pairs_file: Path, word_reward: str
) -> None:
    config = load_config(None, overrides)
    assert tlt_is_matched(config.variants) == MATCHED[overrides]
    shares = shares_of(config, pairs_file, word_reward)
    assert shares["sst"] == 1.0 and (shares["tlt"] < 1.0) == MATCHED[overrides]


def test_tlt_alone_is_all_pairs(pairs_file: Path, word_reward: str) -> None:
    names = ("orm_continued", "prm_sst", "prm_no_reference")
    without = [f"variants.{name}=null" for name in names]
    assert cuts(cut(pairs_file, word_reward, UNMATCHED, *without)["tlt"]) > PAIRS
    config = load_config(None, [UNMATCHED, *without])
    assert shares_of(config, pairs_file, word_reward) == {"tlt": 1.0}


def test_how_much_of_tlt_is_made_decides_the_key_of_the_stage(tmp_path: Path) -> None:
    def key(*overrides: str) -> str:
        plan = Plan(load_config(None, overrides), Store(str(tmp_path)))
        return plan.stages["partial_pairs"].key

    assert key() != key(UNMATCHED)
    assert key() == key("variants.more={truncation: sst, weight: mask}")
