"""A field that is set and that nothing reads is an error; a default never is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reward_kinds

from orchestrator.config.checks import check_files
from orchestrator.config.load import ROOT, ConfigError, load_config, to_yaml
from orchestrator.config.models import check_models
from orchestrator.config.no_effect import explicit_value, fields_without_effect, superseded
from orchestrator.config.sections import Variant
from orchestrator.config.tree import Config
from orchestrator.decoding.methods import method_of

DEFAULTS = ("orm_continued", "prm_sst", "prm_tlt", "prm_no_reference")
NO_VARIANTS = [f"variants.{name}=null" for name in DEFAULTS]
HH = "data={task: hh_rlhf, pairs: pairs.jsonl}"
NO_SCORED_METHOD = [f"search.{name}=null" for name in ("bon", "args", "tbs", "cbs", "cards")]
# The setting under which nothing reads a field, the field with a value, and the reason.
CASES: list[tuple[list[str], str, str]] = [
    (["partial.preset=official"], "partial.sst_k=3", "'official' draws 1 to 10 prefix lengths"),
    (["variants.prm_sst=null", "variants.prm_no_reference=null", "variants.orm_continued=null",
      "variants.prm_tlt.match=null"], "partial.preset=official",
      "no variant is trained on partial pairs"),
    (NO_VARIANTS, "partial.sst_k=3", "no variant is trained on partial pairs of SST"),
    ([f"variants.{name}.weight=mask" for name in ("prm_sst", "prm_tlt")], "weight.max=5",
     "no variant is trained with weights 1/H"),
    ([f"variants.{name}.weight=none" for name in ("prm_sst", "prm_tlt")], "weight.normalize=true",
     "no variant is trained with weights 1/H"),
    (NO_VARIANTS, "cluster.reference_actors=2", "no variant is trained on partial pairs"),
    (["training.evaluation_pairs=0"], "training.evaluation_steps=7", "evaluation_pairs is 0"),
    (["training.orm.max_steps=90"], "training.orm.epochs=2", "max_steps is the number of steps"),
    (["search.general.granularity=token"], "search.general.chunk=9", "does not use it"),
    (["search.general.granularity=chunk"], "search.general.delimiter=x", "does not use it"),
    (["search.cards.entropy_threshold=7"], "search.cards.entropy_quantile=0.5", "is set"),
    (["search.cards.target_reward=1"], "search.cards.target_quantile=0.5", "is set"),
    (NO_SCORED_METHOD, "search.scorers=[orm]", "no search method needs scores"),
    ([HH], "evaluation.pairs_per_prompt=2", "'hh_rlhf' come with the data"),
    ([], "models.vocabulary=300", "are whole words"),
    (["variants.v={truncation: whole, match: prm_sst}"], "variants.v.weight=none", "same weight"),
    ([], "variants.orm_continued.weight=reference", "gives all pairs the same weight"),
    ([], "variants.v.beta=0.1", "only a log ratio has this factor"),
    (["variants.v.checkpoint=a/b"], "variants.v.beta=0.1", "only a log ratio has this factor"),
    (["variants.v.checkpoint=a/b"], "variants.v.truncation=sst", "a checkpoint is not trained"),
    (["variants.v.checkpoint=a/b"], "variants.v.weight=none", "a checkpoint is not trained"),
    (["variants.v.checkpoint=a/b"], "variants.v.match=prm_sst", "a checkpoint is not trained"),
    (["variants.v.objective=dpo"], "variants.v.truncation=sst", "'dpo' trains on whole pairs"),
    (["variants.v.objective=nca"], "variants.v.weight=reference", "'nca' trains on whole pairs"),
    (["variants.v={objective: density_ratio, base: a/b}"], "variants.v.match=prm_sst",
     "a density ratio is not trained"),
    (["variants.v.truncation=sst"], "variants.v.kind=encoder", "is of kind sequence"),
    (["variants.v.truncation=sst"], "variants.v.kind=log_ratio", "is of kind sequence"),
    (["variants.v={objective: dpo, checkpoint: a/b}"], "variants.v.kind=step_tag",
     "is of kind log_ratio"),
    (["variants.v.truncation=sst"], "variants.v.step_tag=x", "kind sequence has no step tag"),
    (["variants.v={checkpoint: a/b, kind: encoder}"], "variants.v.step_tag=x", "kind encoder"),
    (["variants.v.objective=ce"], "variants.v.step_delimiter=.", "without an aggregation has no"),
    (["variants.v.truncation=sst"], "variants.v.step_delimiter=.", "without an aggregation"),
]  # fmt: skip


def errors(*overrides: str, file: Path | None = None) -> list[str]:
    try:
        load_config(file, overrides)
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(("setting", "field", "reason"), CASES, ids=lambda case: str(case)[:60])
def test_a_field_that_is_set_and_not_read_is_named_with_its_value_and_what_is_valid(
    setting: list[str], field: str, reason: str
) -> None:
    name, _, value = field.partition("=")
    (line,) = errors(*setting, field)
    assert line.startswith(f"{name} = ") and value.strip("[]") in line.replace("True", "true")
    assert reason in line and "; valid: " in line and f"or remove {name}" in line
    assert errors(*setting) == [], "the setting alone is valid: what is not set does not raise"


def test_each_field_that_nothing_reads_has_a_line() -> None:
    setting = "variants.v={objective: dpo, truncation: tlt, weight: none, step_tag: x}"
    lines = errors(setting, "partial={preset: official, sst_k: 3}")
    assert [line.split(" = ")[0] for line in lines] == [
        "partial.sst_k", "variants.v.truncation", "variants.v.weight", "variants.v.step_tag",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        ["partial={preset: paper, sst_k: 3}"],
        ["training={evaluation_pairs: 9, evaluation_steps: 3}"],
        ["search.general={granularity: chunk, chunk: 3}"],
        ["search.general={granularity: step, delimiter: .}"],
        ["search.cards={entropy_threshold: 7, target_quantile: 0.5}"],
        ["search.cards={entropy_threshold: null, entropy_quantile: 0.5}"],
        ["variants.v={objective: dpo, beta: 0.1, aggregation: min, step_delimiter: .}"],
        ["variants.v={checkpoint: a/b, kind: log_ratio, base: c/d, beta: 2}"],
        ["variants.v={checkpoint: a/b, objective: dpo, kind: log_ratio}"],
        ["variants.v={checkpoint: a/b, kind: step_tag, step_tag: x, step_delimiter: .}"],
        ["variants.v={checkpoint: a/b, step_tag: x, step_delimiter: .}"],  # its files decide
        ["variants.v={truncation: sst, aggregation: min, step_delimiter: .}"],
        ["weight={max: 5, normalize: true}"],
        [HH, "models.vocabulary=300"],
        ["training.evaluation_pairs=0", "training.evaluation_steps=null"],
        ["variants.v={objective: dpo, match: null, kind: null}"],
    ],
    ids=" ".join,
)
def test_a_field_that_is_read_and_one_that_is_null_are_valid(overrides: list[str]) -> None:
    assert errors(*overrides) == []


def test_a_default_variant_made_another_kind_keeps_no_field_of_the_default() -> None:
    """What the user did not set is not an error, and is not left behind either."""
    alone = ["variants.prm_tlt=null", "variants.prm_sst=null"]
    config = load_config(None, ["variants.orm_continued.objective=dpo", *alone])
    assert config.variants["orm_continued"] == Variant(objective="dpo")
    config = load_config(None, ["variants.orm_continued.checkpoint=a/b", *alone])
    assert config.variants["orm_continued"] == Variant(checkpoint="a/b")
    config = load_config(None, ["variants.prm_no_reference={truncation: whole, match: prm_sst}"])
    assert config.variants["prm_no_reference"] == Variant(truncation="whole", match="prm_sst")


def test_what_a_base_sets_counts_as_set(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("partial: {sst_k: 3}\n")
    (tmp_path / "top.yaml").write_text("base: base.yaml\npartial: {preset: official}\n")
    (line,) = errors(file=tmp_path / "top.yaml")
    assert line.startswith("partial.sst_k = 3: ")


def test_a_config_made_in_python_is_checked_alike() -> None:
    with pytest.raises(ValueError, match=r"variants\.v\.beta = 0\.1: it has no effect"):
        Config(variants={"v": Variant(beta=0.1)})
    with pytest.raises(ValueError, match=r"search\.general\.chunk = 5: it has no effect"):
        Config.model_validate({"search": {"general": {"chunk": 5}}})
    Config.model_validate({"variants": {"v": {}}, "search": {"general": {}}})


UNSET = "unset"
SWITCHES: dict[str, Sequence[str]] = {
    "partial.preset": ("paper", "official"),
    "training.evaluation_pairs": ("0", "8"),
    "training.evaluation_steps": (UNSET, "null"),
    "weight.max": (UNSET, "null"),
    "training.orm.max_steps": ("null", "40"),
    "search.general": ("null", "{granularity: step}", "{granularity: chunk}", "{candidates: 3}"),
    "search.cards": ("null", "{entropy_threshold: 7}", "{target_reward: 1}"),
    "variants.prm_sst": ("{weight: none}", "{weight: mask}", "{objective: dpo}",
                         "{checkpoint: a/b}"),
    "variants.prm_tlt": ("null", "{match: null}", "{truncation: sst, match: null}"),
    "variants.orm_continued": ("null", "{checkpoint: a/b, kind: step_tag}", "{objective: ce}"),
    "variants.new": ("{objective: density_ratio, base: a/b}", "{aggregation: min}",
                     "{checkpoint: a/b, base: c/d, kind: log_ratio}"),
    "data": ("{task: helpdesk}", "{task: hh_rlhf, pairs: x.jsonl}"),
}  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in SWITCHES.items()}))
def test_the_resolved_config_has_all_fields_but_those_that_nothing_reads(
    tmp_path_factory: pytest.TempPathFactory, chosen: dict[str, str]
) -> None:
    """Its YAML sets every field: it would not be read back if it held an unread one."""
    overrides = [f"{name}={value}" for name, value in chosen.items() if value != UNSET]
    config = load_config(None, overrides)
    file = tmp_path_factory.mktemp("resolved") / "resolved.yaml"
    file.write_text(to_yaml(config))
    again = load_config(file)
    assert again == config
    assert to_yaml(again) == to_yaml(config)
    assert all(explicit_value(again, item.field) is None for item in fields_without_effect(config))


@pytest.mark.parametrize("method", ["bon", "cbs", "tbs", "args", "cards"])
def test_one_override_turns_a_method_of_the_smallest_config_off(method: str) -> None:
    assert errors(f"search.{method}=null", file=ROOT / "configs" / "smoke.yaml") == []


def test_settings_of_a_training_that_a_checkpoint_replaces_are_valid_and_named() -> None:
    """One override must be enough to try another model: docs/training.md does so."""
    models = [f"models.{name}=a/b" for name in ("policy", "orm", "reference")]
    config = load_config(
        ROOT / "configs" / "hh_small.yaml",
        [*models, *NO_VARIANTS, "data.pairs=x.jsonl", "training.workers=1",
         "training.evaluation_pairs=4"],
    )  # fmt: skip
    assert superseded(config) == {
        "models.policy is set": ["models.architecture", "models.vocabulary", "training.policy"],
        "models.orm is set": ["training.orm"],
        "models.reference is set": ["training.reference"],
        "no variant is trained from the ORM": ["training.prm"],
        "no reward model is trained": ["training.evaluation_pairs"],
        "no model is trained": ["training.workers"],
    }
    assert superseded(load_config(ROOT / "configs" / "smoke.yaml")) == {}
    implicit = load_config(None, ["training.implicit.learning_rate=1.0e-3"])
    assert superseded(implicit) == {"no implicit PRM is trained": ["training.implicit"]}
    only = load_config(None, ["variants.v.objective=dpo", *NO_VARIANTS])
    assert superseded(only)["no variant needs the reference"] == ["training.reference"]


def test_a_match_on_what_has_no_partial_pairs_is_refused() -> None:
    """An implicit PRM trains on whole pairs: none of the variant's would have been taken."""
    (line,) = errors("variants.dpo.objective=dpo", "variants.prm_tlt.match=dpo")
    assert line == (
        "variants.prm_tlt.match = 'dpo': is not trained on partial pairs, whose number must"
        " be matched; valid: prm_sst, prm_no_reference"
    )
    assert errors("variants.dpo.objective=dpo", "variants.orm_continued.match=dpo") == []


def test_a_match_on_what_the_run_does_not_train_is_refused() -> None:
    ratio = "variants.ratio={objective: density_ratio, base: a/b}"
    assert errors(ratio, "variants.prm_tlt.match=ratio") == [
        "variants.prm_tlt.match = 'ratio': is not trained in this run, so there is no number of"
        " training steps to match; valid: a variant that this run trains"
    ]


def test_the_valid_matches_are_those_that_pass_all_checks() -> None:
    trained = "variants.dpo.objective=dpo"
    ratio = "variants.ratio={objective: density_ratio, base: a/b}"
    (line,) = errors(trained, ratio, "variants.orm_continued.match=nobody")
    assert line.endswith("no such variant; valid: prm_sst, prm_no_reference, dpo")
    (line,) = errors(trained, ratio, "variants.prm_tlt.match=nobody")
    assert line.endswith("no such variant; valid: prm_sst, prm_no_reference")
    (line,) = errors("variants.prm_no_reference=null", "variants.prm_sst.match=nobody",
                     "variants.prm_tlt=null", "variants.orm_continued=null")  # fmt: skip
    assert line.endswith("no such variant; valid: none of these variants")


def refused_model(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_models(load_config(None, overrides))
    return str(error.value)


def test_fields_that_the_kind_of_a_checkpoint_does_not_read_are_refused(
    word_reward: str, tmp_path: Path
) -> None:
    given = f"variants.v.checkpoint={word_reward}"
    assert refused_model(given, "variants.v.step_tag=x").startswith(
        "variants.v.step_tag = 'x': it has no effect: a scorer of kind sequence has no step tag"
    )
    assert "kind sequence without an aggregation has no steps" in refused_model(
        given, "variants.v.step_delimiter=."
    )
    check_models(load_config(None, [given, "variants.v.step_delimiter=.",
                                    "variants.v.aggregation=min"]))  # fmt: skip
    steps = reward_kinds.process_head(tmp_path / "process")
    check_models(load_config(None, [f"variants.v.checkpoint={steps}",
                                    "variants.v.step_delimiter=."]))  # fmt: skip


def test_a_cache_that_no_scorer_keeps_is_refused(word_policy: str, tmp_path: Path) -> None:
    encoder = reward_kinds.deberta(tmp_path / "deberta")
    cache = "cluster.reward_cache_mib=64"
    text = refused_model(cache, f"models.orm={encoder}", *NO_VARIANTS)
    assert text == (
        "cluster.reward_cache_mib = 64: it has no effect: no scorer is of kind sequence; valid:"
        " null"
    )
    check_models(load_config(None, [cache]))


OURS: list[tuple[str, str]] = [
    ('{"optimizer": {"params": {"lr": 0.1}}}', "optimizer.params.lr = 0.1"),
    ('{"scheduler": {"type": "WarmupLR"}}', "scheduler = {'type': 'WarmupLR'}"),
    ('{"train_batch_size": 8}', "train_batch_size = 8"),
    ('{"train_micro_batch_size_per_gpu": 8}', "train_micro_batch_size_per_gpu = 8"),
    ('{"gradient_accumulation_steps": 2}', "gradient_accumulation_steps = 2"),
    ('{"zero_optimization": {"stage": 2}}', "zero_optimization.stage = 2"),
]


@pytest.mark.parametrize(("content", "field"), OURS)
def test_fields_of_deepspeeds_file_that_the_training_decides_are_refused(
    content: str, field: str, tmp_path: Path
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(content)
    config = load_config(None, [f"training.deepspeed={file}", "training.zero_stage=1"])
    with pytest.raises(ConfigError) as error:
        check_files(config)
    text = str(error.value)
    assert text.startswith(f"training.deepspeed = '{file}': its {field} has no effect: ")
    assert "; valid: " in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"granularity": "token", "chunk": 4}, "method.chunk = 4: it has no effect"),
        ({"chunk": 4}, "method.chunk = 4: it has no effect: granularity 'sentence'"),
        ({"granularity": "chunk", "delimiter": "x"}, "method.delimiter = 'x': it has no effect"),
    ],
)
def test_fields_of_a_method_that_its_granularity_does_not_use_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        method_of("general", fields)
    assert str(error.value).startswith(message)
    assert method_of("general", {"granularity": "chunk", "chunk": 4}).settings["chunk"] == 4
    assert (
        method_of("general", {"granularity": "step", "delimiter": "x"}).settings["delimiter"] == "x"
    )
