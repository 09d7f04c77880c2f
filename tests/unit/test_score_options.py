"""Options of jobs/score.py that cannot be: exit code 2, the option, its value, what is valid."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from support.reward_kinds import MAKERS

from actors.prefix_scores import ShardCounts
from jobs.batch.score import score_main
from jobs.batch.score_options import ScoreOptions
from jobs.batch.score_output import ScoreOutput, Totals
from orchestrator.config.load import ConfigError
from orchestrator.data.rejects import SCHEMA, write_rejects
from orchestrator.records import Reject
from orchestrator.stages.identity import fingerprint

ROWS = [{"prompt": "order .", "response": "thank you ."}]


@pytest.fixture
def options(word_reward: str, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return {
        "input": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "out"),
        "reward": word_reward, "kind": None, "base": None, "beta": None, "position": "closed",
        "prefixes": "whole", "aggregation": None, "step_delimiter": None, "step_tag": None,
        "score_label": None,
        "branch_memory_mib": 256, "engine": "transformers", "seed": 0, "actors": 1, "threads": 1,
        "batch_size": 4, "shard_rows": 2, "device": "cpu", "force": False,
    }  # fmt: skip


def refused(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What a run says that ends with 2 before Ray is there and before anything is written."""
    assert score_main(ScoreOptions(**options)) == 2
    assert not ray.is_initialized()
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err.strip()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input": "/nowhere.jsonl"}, "--input = '/nowhere.jsonl': no such file; valid: a file"),
        ({"input": "rows.csv"}, "--input = 'rows.csv': unknown format; valid: a file"),
        (
            {"output": "s3://bucket/x"},
            "--output = 's3://bucket/x': a URI is not supported; valid: a local folder",
        ),
        ({"reward": "/nowhere"}, "--reward = '/nowhere': no such folder; valid: a folder with"),
        ({"base": "./nowhere"}, "--base = './nowhere': no such folder; valid: a folder with"),
        ({"kind": "encoder"}, "cannot be a scorer of kind 'encoder': it is a LlamaForSequence"),
        ({"kind": "log_ratio"}, "kind 'log_ratio' needs a base"),
        ({"beta": 2.0}, "--beta = 2.0: only a log ratio uses it; valid: together with --base"),
        (
            {"step_tag": "+"},
            "--step-tag = '+': a reward model of kind sequence has no step tag; valid:",
        ),
        ({"prefixes": "some"}, "--prefixes = 'some'; valid: whole (the whole response alone)"),
        ({"prefixes": "every:0"}, "--prefixes = 'every:0'; valid: whole"),
        ({"prefixes": "steps"}, "step_delimiter = '\\n\\n': the reward model's tokenizer loses"),
        ({"seed": -1}, "--seed = -1: valid: a whole number from 0"),
    ],
)
def test_the_option_its_value_and_what_is_valid_are_named(
    change: dict[str, Any], expected: str, options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    said = refused({**options, **change}, capsys)
    assert said.startswith("error: --") and expected in said
    assert not Path(options["output"]).exists()


def test_what_vllm_does_not_score_is_refused(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vllm = {**options, "engine": "vllm"}
    said = refused(vllm, capsys)
    assert said.strip() == (
        "error: --position = 'closed': engine 'vllm' scores all prefixes of a response in one"
        " forward pass, which needs position open; position closed would need one forward pass per"
        " prefix; valid: position open, or engine transformers"
    )
    shepherd = {"reward": MAKERS["shepherd"](tmp_path / "m"), "kind": "step_tag"}
    said = refused({**vllm, **shepherd, "position": "open"}, capsys)
    assert "the reward model is of kind step_tag; valid: transformers" in said
    if importlib.util.find_spec("vllm") is None:
        said = refused({**vllm, "position": "open"}, capsys)
        assert "which is not installed: pip install" in said


def test_a_language_model_must_be_called_by_its_kind(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused({**options, "reward": MAKERS["shepherd"](tmp_path / "m")}, capsys)
    assert "or a kind (step_tag, log_ratio)" in said


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_without_anything_to_score_is_refused(
    suffix: str, options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{"prompt": "x", "chosen": "y"}]), place)
    else:
        place.write_text('{"prompt": "x"}\nno json\n')
    said = refused({**options, "input": str(place)}, capsys)
    found = "prompt, chosen" if suffix == ".parquet" else "prompt"
    assert f"nothing to score; columns found: {found}; valid: rows with `prompt` and" in said


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "response"),
        ({"prompt": "x", "response_a": "y", "response_b": "z", "winner": "tie"}, "pair"),
        ({"context": "x", "completions": [{"text": "y", "rank": 1}]}, "ranked"),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_form_of_the_rows_is_told_by_their_fields(
    row: dict[str, Any], kind: str, suffix: str, options: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), place)
    else:
        place.write_text(json.dumps(row))
    assert ScoreOptions(**{**options, "input": str(place)}).row_reader().rows == kind


def test_a_parquet_file_that_is_none_is_refused(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.parquet").write_text("no Parquet")
    assert "--input" in refused({**options, "input": str(tmp_path / "x.parquet")}, capsys)


def test_columns_that_the_output_adds_may_not_be_there(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({**ROWS[0], "score": 1, "row": 2}) + "\n")
    said = refused({**options, "input": str(tmp_path / "x.jsonl")}, capsys)
    assert "has columns that the output adds: row, score" in said


IDENTITY = {"--input": "a", "--prefixes": "tlt"}
COUNTS: ShardCounts = {"shard": 0, "rows": 2, "rejected": 1, "tokens": 9}
TABLE = pa.table({"row": [1, 3], "score": [0.5, 0.25]})
REFUSED = [{"source": "x", "row": 2, "reason": "not JSON", "content": "{"}]


def half_done(place: Path) -> ScoreOutput:
    output = ScoreOutput(place)
    assert output.begin(IDENTITY, force=False) is None
    output.write(COUNTS, TABLE, pa.Table.from_pylist(REFUSED, SCHEMA))
    return output


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_written_shards_are_kept_and_the_finished_output_is_complete(
    name: str, tmp_path: Path
) -> None:
    half_done(tmp_path / name)
    torn = ScoreOutput(tmp_path / name)
    left = torn.folder / "scores" / ".shard-000001.parquet.0123.partial"
    left.write_text("half a shard")
    assert torn.begin(IDENTITY, force=False) is None
    assert list(torn.finished_shards()) == [COUNTS] and not left.exists()
    more: ShardCounts = {**COUNTS, "shard": 1, "rejected": 0}
    torn.write(more, TABLE, SCHEMA.empty_table())
    summary = torn.finish(IDENTITY, Totals(4, 1, 18))
    assert summary == {"rows": 4, "rejected": 1, "tokens": 18, "reasons": {"not JSON": 1}}
    assert pq.read_table(torn.results).to_pylist() == 2 * TABLE.to_pylist()
    assert pq.read_table(torn.rejects).to_pylist() == REFUSED
    assert ScoreOutput(tmp_path / name).begin(IDENTITY, force=False) == summary
    hidden = [path for path in tmp_path.rglob(".*")]
    assert hidden == []
    if name == "out.parquet":
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "out.parquet", "out.rejects.parquet",
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["out", "out.parquet"])
@pytest.mark.parametrize("finished", [False, True])
def test_other_options_are_refused_by_name_unless_forced(
    name: str, finished: bool, tmp_path: Path
) -> None:
    output = half_done(tmp_path / name)
    if finished:
        output.finish(IDENTITY, Totals(2, 1, 9))
    other = {**IDENTITY, "--prefixes": "whole"}
    with pytest.raises(
        ConfigError, match=r"other options: --prefixes = 'tlt' \(now 'whole'\); valid"
    ):
        ScoreOutput(tmp_path / name).begin(other, force=False)
    again = ScoreOutput(tmp_path / name)
    assert again.begin(other, force=True) is None
    assert list(again.finished_shards()) == [] and not again.rejects.exists()


def test_other_files_are_named_without_the_hashes_of_their_contents(tmp_path: Path) -> None:
    file, before = tmp_path / "rows.jsonl", {"--base": None, "--reward": "name:org/model"}
    file.write_text("{}")
    output = ScoreOutput(tmp_path / "out")
    output.begin({**before, "--input": fingerprint(str(file))}, force=False)
    file.write_text("[]")
    now = {"--base": "name:org/base", "--reward": fingerprint(str(tmp_path / "rows.jsonl"))}
    with pytest.raises(ConfigError) as refusal:
        output.begin({**now, "--input": fingerprint(str(file))}, force=False)
    assert str(refusal.value) == (
        f"--output = {str(tmp_path / 'out')!r}: was made with other options: --base = None (now"
        " 'org/base'), --reward = 'org/model' (now a local file or folder), the contents of --input"
        " have changed; valid: the same options and files, another path, or --force to overwrite"
    )


def test_what_another_program_wrote_is_not_written_over(tmp_path: Path) -> None:
    write_rejects(tmp_path / "out" / "rejects.parquet", [Reject("x", 1, "y", "z")])
    pq.write_table(TABLE, tmp_path / "x.parquet")
    for name in ("out", "x.parquet"):
        with pytest.raises(ConfigError, match="exists and was not written by this command"):
            ScoreOutput(tmp_path / name).begin(IDENTITY, force=False)
    mine = tmp_path / "notes" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    output = ScoreOutput(mine.parent)
    assert output.begin(IDENTITY, force=True) is None
    assert mine.read_text() == "mine" and (mine.parent / ScoreOutput.MANIFEST).is_file()


@pytest.mark.parametrize("name", ["out", "out.parquet"])
def test_unfinished_shards_of_an_earlier_version_are_refused_unless_forced(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / ("out.parquet.parts" if name == "out.parquet" else "out")
    (folder / "scores").mkdir(parents=True)
    pq.write_table(TABLE, folder / "scores" / "part-00000.parquet")
    manifest = {"identity": IDENTITY, "summary": None}
    (folder / ScoreOutput.MANIFEST).write_text(json.dumps(manifest))
    output = ScoreOutput(tmp_path / name)
    with pytest.raises(ConfigError, match="unfinished shards of an earlier version, named part-"):
        output.begin(IDENTITY, force=False)
    assert output.begin(IDENTITY, force=True) is None
    assert list(tmp_path.rglob("part-*")) == []


def test_a_finished_output_of_an_earlier_version_is_finished(tmp_path: Path) -> None:
    (tmp_path / "out" / "scores").mkdir(parents=True)
    pq.write_table(TABLE, tmp_path / "out" / "scores" / "part-00000.parquet")
    summary = {"rows": 2, "rejected": 0, "tokens": 9, "reasons": {}}
    manifest = {"identity": {**IDENTITY, "--part-rows": 2}, "summary": summary}
    (tmp_path / "out" / ScoreOutput.MANIFEST).write_text(json.dumps(manifest))
    identity = {**IDENTITY, "--shard-rows": 2}
    assert ScoreOutput(tmp_path / "out").begin(identity, force=False) == summary
