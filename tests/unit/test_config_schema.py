"""The JSON schema of a config: what it accepts, and what an editor marks."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestrator.config.load import ROOT, load_config, to_yaml
from orchestrator.documentation.config_schema import INTERPOLATION
from orchestrator.fields.yaml_text import read_yaml

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "config.schema.json").read_text())
CHECK = jsonschema.Draft7Validator(SCHEMA)


def errors(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in CHECK.iter_errors(read_yaml(text))]


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_config_is_valid_and_names_the_schema(file: Path) -> None:
    text = file.read_text()
    assert errors(text) == []
    (named,) = re.findall(r"\A# yaml-language-server: \$schema=(\S+)\n", text)
    assert (file.parent / named).resolve() == ROOT / "docs" / "config.schema.json"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["variants.prm_tlt=null", "search.cards=null", "search.step_beam.beams=2"],
        ["variants.v={objective: dpo, aggregation: min, step_delimiter: .}"],
        ["search.methods=[{name: cbs, chunk: 6}, {name: bon, n: 8}]"],
        ["data={task: gsm8k, demonstrations: a.jsonl, pairs: b.jsonl, test: c.jsonl}"],
    ],
)
def test_the_resolved_config_of_a_run_is_valid(overrides: list[str]) -> None:
    assert errors(to_yaml(load_config(None, overrides))) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base: helpdesk.yaml\nname: ${oc.env:NAME,x}",
        "seed: ${oc.env:SEED,1}\nsearch: {engine: '${oc.env:ENGINE}', cbs: {beams: '${seed}'}}",
        "data: {task: hh_rlhf}",  # its file is set on the command line
        "data: {demonstrations: 10}",  # the base file names the task
        "search: [{name: cbs, chunk: 6}, {name: cbs, chunk: 12}]",
        "variants: {prm_tlt: null, mine: {checkpoint: a/b, score_at: -2}}",
        "models: {orm: a/b, orm_reading: {score_at: '<|eot_id|>'}}",
        "training: {orm: {learning_rate: 1e-3}}",
    ],
)
def test_what_one_file_may_hold_is_valid(text: str) -> None:
    assert errors(text or "{}") == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("trainig: {}", "$"),
        ("seed: -1", "$.seed"),
        ("seed: [1]", "$.seed"),
        ("training: {zero_stage: 4}", "$.training.zero_stage"),
        ("training: {orm: {lr: 0.1}}", "$.training.orm"),
        ("data: {task: helpdesk, pairs: a.jsonl}", "$.data"),
        ("data: {task: trivia}", "$.data"),
        ("search: {cbs: {beam: 4}}", "$.search"),
        ("search: []", "$.search"),
        ("search: [{chunk: 6}]", "$.search"),  # of a list, a method names itself
        ("search: {wave_size: 6}", "$.search"),  # a field of an earlier version
        ("variants: {v: {truncation: words}}", "$.variants.v"),
        ("variants: null", "$.variants"),
        ("name: a/b", "$.name"),
    ],
)
def test_a_mistake_is_marked(text: str, path: str) -> None:
    found = errors(text)
    assert found and all(line.startswith(path) for line in found), found


def test_every_field_has_a_description_without_links() -> None:
    described = 0
    for name, section in SCHEMA["definitions"].items():
        if name in (INTERPOLATION, "StepFormat"):
            continue
        for field, schema in section["properties"].items():
            assert schema.get("description") or field == "name", f"{name}.{field}"
            assert "](" not in schema.get("description", ""), f"{name}.{field}"
            described += 1
    assert described > 100
