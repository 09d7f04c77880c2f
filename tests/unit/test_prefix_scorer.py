"""The scoring pipeline's functions in one process: a file's scores are those of the scorer."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ARCHITECTURE
from support.reward_kinds import MAKERS, QUESTION, STEPS

from actors.prefix_scores import PrefixScorer
from jobs.batch.score_output import ScoreOutput, Totals
from jobs.batch.score_pipeline import ShardReader, ShardWriter
from orchestrator.checkpoints.checkpoint import new_policy, save_checkpoint
from orchestrator.choices import Position
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.data.prefixes import Prefixes
from orchestrator.data.row_forms import RowForm
from orchestrator.data.shards import split_into_shards
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.tasks.helpdesk.words import vocabulary

TOLERANCE = 1e-4
TEXTS = ("".join(STEPS), "that is 5 .", STEPS[1] + STEPS[0] * 3, "5", "so\n\nwhat\n\nis")


def scored(
    spec: ScorerSpec,
    rows: list[dict[str, Any]],
    folder: Path,
    prefixes: str = "every:3",
    kind: RowForm = "response",
    position: Position = "closed",
    batch_size: int = 2,
) -> pa.Table:
    """The table that the pipeline's functions write, part by part."""
    folder.mkdir(exist_ok=True)
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader = RowReader(spec, position, kind, Prefixes.parse(prefixes), 0, "rows")
    file = split_into_shards(str(source), 3, reader.check, folder)
    output = ScoreOutput(folder / "out")
    assert output.begin({}, force=False) is None
    read, write = ShardReader(file, reader), ShardWriter(str(output.path))
    actor = PrefixScorer(spec, position, kind, batch_size, "cpu", 1, "rows.jsonl")
    for part in file.shards:
        row = {"index": part.index, "first": part.first, "start": part.start, "stop": part.stop}
        counts = write(actor(read(row)))
        assert counts["shard"] == part.index
    return pq.read_table(output.results)


@pytest.mark.parametrize("name", list(MAKERS))
@pytest.mark.parametrize("position", ["closed", "open"])
def test_every_kind_of_reward_model_scores_a_file_as_it_scores_a_row(
    name: str, position: Position, tmp_path: Path
) -> None:
    said = {"shepherd": "step_tag", "value_head": "sequence"}.get(name)
    spec = ScorerSpec(MAKERS[name](tmp_path / "m"), said)
    rows = [{"prompt": QUESTION, "response": text, "id": i} for i, text in enumerate(TEXTS)]
    table = scored(spec, rows, tmp_path / "f", position=position)
    assert table.column_names == [
        "prompt", "response", "id", "row", "cuts", "prefix_scores", "score",
    ]  # fmt: skip
    assert table["id"].to_pylist() == list(range(len(rows)))
    assert table["row"].to_pylist() == [i + 1 for i in range(len(rows))]
    scorer = load_scorer(spec, position)
    for row in table.to_pylist():
        text = scorer.chat.conversation([{"role": "user", "content": QUESTION}], row["response"])
        prompt, ids = text.prompt_ids, text.response_ids
        assert row["cuts"] == [*range(3, len(ids), 3), len(ids)]
        (expected,) = scorer.prefix_scores([prompt], [ids], [row["cuts"]])
        assert row["prefix_scores"] == pytest.approx(expected, abs=TOLERANCE)
        assert row["score"] == row["prefix_scores"][-1]


def test_a_log_ratio_scores_with_its_base_and_beta(word_policy: str, tmp_path: Path) -> None:
    tokenizer = word_tokenizer(vocabulary())
    base = str(tmp_path / "base")
    save_checkpoint(new_policy(tokenizer, ARCHITECTURE, seed=9), tokenizer, tmp_path / "base")
    spec = ScorerSpec(word_policy, base=base, beta=0.3)
    rows = [{"prompt": "order 3 .", "response": "thank you for writing ."}]
    (row,) = scored(spec, rows, tmp_path / "f", "1,2").to_pylist()
    scorer = load_scorer(spec, "closed")
    prompt = scorer.chat.prompt_ids([{"role": "user", "content": "order 3 ."}])
    ids = scorer.chat.response_ids("thank you for writing .")
    (expected,) = scorer.prefix_scores([prompt], [ids], [[1, 2, len(ids)]])
    assert [*row["prefix_scores"], row["score"]] == pytest.approx(expected, abs=TOLERANCE)
    assert abs(row["score"]) > 0.01


def test_both_sides_of_a_pair_are_scored(word_reward: str, tmp_path: Path) -> None:
    pair = {"prompt": "order 3 .", "chosen": "thank you for writing .", "rejected": "no ."}
    table = scored(ScorerSpec(word_reward), [pair] * 4, tmp_path, "tlt", "pair")
    single = [{"prompt": pair["prompt"], "response": pair[side]} for side in ("chosen", "rejected")]
    alone = scored(ScorerSpec(word_reward), single, tmp_path / "single", "tlt").to_pylist()
    for row in table.to_pylist():
        for side, expected in zip(("chosen", "rejected"), alone, strict=True):
            assert row[f"{side}_cuts"] == expected["cuts"]
            assert row[f"{side}_score"] == pytest.approx(expected["score"], abs=TOLERANCE)
            assert row[f"{side}_prefix_scores"] == pytest.approx(
                expected["prefix_scores"], abs=TOLERANCE
            )


def test_no_batch_size_changes_a_score_and_no_cut_is_no_score(
    word_reward: str, tmp_path: Path
) -> None:
    texts = ["thank you " * (i % 5 + 1) for i in range(9)]
    rows = [{"prompt": "order .", "response": text} for text in texts]
    tables = [
        scored(ScorerSpec(word_reward), rows, tmp_path / str(size), "sst:1", batch_size=size)
        for size in (1, 4, 100)
    ]
    first = tables[0].to_pylist()
    assert any(row["cuts"] == [] == row["prefix_scores"] for row in first)
    assert any(row["cuts"] for row in first)
    for table in tables[1:]:
        for row, other in zip(first, table.to_pylist(), strict=True):
            assert other["cuts"] == row["cuts"]
            assert other["score"] == pytest.approx(row["score"], abs=TOLERANCE)
            assert other["prefix_scores"] == pytest.approx(row["prefix_scores"], abs=TOLERANCE)


def test_a_score_that_is_no_number_stops_with_the_rows_of_the_file(
    broken_reward: str, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "order .", "response": "no ."} for _ in range(5)]
    rows[1] = {"prompt": "order ."}
    with pytest.raises(RewardIsNotFinite) as error:
        scored(ScorerSpec(broken_reward), rows, tmp_path)
    # Row 2 is refused; the first two of its part go to the model together.
    assert "rows.jsonl: rewards of 2 rows in shard 0 are not finite: rows [1, 3]" in str(
        error.value
    )


def test_a_part_whose_rows_are_all_refused_is_a_part(word_reward: str, tmp_path: Path) -> None:
    rows = [{"prompt": "order .", "response": "no ."}] * 3 + [{"prompt": "x", "response": ""}] * 3
    table = scored(ScorerSpec(word_reward), rows, tmp_path)
    assert table.num_rows == 3
    output = ScoreOutput(tmp_path / "out")
    counts = list(output.finished_shards())
    assert [(c["rows"], c["rejected"]) for c in counts] == [(3, 0), (0, 3)]
    summary = output.finish({}, Totals(3, 3, 0))
    assert summary["reasons"] == {"empty response: response": 3}
    assert pq.read_table(output.rejects)["row"].to_pylist() == [4, 5, 6]


def test_each_pair_of_ranked_completions_is_a_row_with_its_name(
    word_reward: str, tmp_path: Path
) -> None:
    texts = ("no .", "thank you for writing .", "read the manual .")
    ranks = dict(zip(texts, (2, 0, 2), strict=True))
    listed = [{"rank": rank, "completion": text} for text, rank in ranks.items()]
    asked = [{"role": "user", "content": "order 3 ."}]
    ranked = {"context": asked, "completions": listed, "id": "a"}
    pair = {"prompt": "order 3 .", "chosen": texts[1], "rejected": texts[0], "id": "b"}
    table = scored(ScorerSpec(word_reward), [ranked, pair], tmp_path, "sst", "ranked")
    rows = table.to_pylist()
    assert [(row["row"], row["pair"], row["id"]) for row in rows] == [
        (1, "2-1", "a"), (1, "2-3", "a"), (2, "", "b"),
    ]  # fmt: skip
    output = ScoreOutput(tmp_path / "out")
    output.finish({}, Totals(3, 1, 0))
    assert pq.read_table(output.rejects)["reason"].to_pylist() == ["tie"]
    alone = scored(ScorerSpec(word_reward), [pair], tmp_path / "alone", "sst", "pair").to_pylist()
    for side in ("chosen", "rejected"):
        assert rows[0][f"{side}_score"] == pytest.approx(alone[0][f"{side}_score"], abs=TOLERANCE)
    # The lengths that SST draws are those of the pair's id, as in training.
    longest = max(len(load_scorer(ScorerSpec(word_reward)).chat.response_ids(t)) for t in texts[:2])
    drawn = Prefixes.parse("sst").cuts(longest, longest, list, 0, "rows-1:2-1")
    assert rows[0]["chosen_cuts"] == drawn
