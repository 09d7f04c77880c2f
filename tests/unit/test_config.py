"""The config: every wrong value gives one message with field, value and what is valid."""

import shutil
from pathlib import Path

import pytest
from support import reward_kinds

from orchestrator.config.checks import (
    check_checkpoints_exist,
    check_files,
    check_model_name,
    check_splits_not_empty,
    reads_checkpoints,
)
from orchestrator.config.load import ROOT, ConfigError, load_config, to_yaml
from orchestrator.config.models import check_models
from orchestrator.config.training import TrainingConfig
from orchestrator.config.tree import Config
from orchestrator.data.rows import VALID
from orchestrator.search.method import METHODS
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.tasks.task import TASKS

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Override -> pieces of the message: field, value, what is valid.
WRONG = {
    "partial.sst_k=0": ("partial.sst_k", "0", "greater than or equal to 1"),
    "search.cbs.beams=0": ("search.cbs.beams", "0", "greater than or equal to 1"),
    "search.cbs.chunk=-3": ("search.cbs.chunk", "-3", "greater than or equal to 1"),
    "search.args.k=0": ("search.args.k", "0", "greater than or equal to 1"),
    "search.bon.n=0": ("search.bon.n", "0", "greater than or equal to 1"),
    "search.tbs.chunk=2": ("search.tbs.chunk", "2", "should be 1"),
    "search.cards.alpha=1.5": ("search.cards.alpha", "1.5", "less than or equal to 1"),
    "search.scorers=[orn]": ("search.scorers", "'orn'", "valid: orm, reference, orm_continued"),
    "training.zero_stage=4": ("training.zero_stage", "4", "less than or equal to 3"),
    "training.workers=0": ("training.workers", "0", "greater than or equal to 1"),
    "training.workers=many": ("training.workers", "'many'", "valid integer"),
    "training.precision=float16": (
        "training.precision",
        "'float16'",
        "'auto', 'float32' or 'bfloat16'",
    ),
    "training.prm.learning_rate=0": ("training.prm.learning_rate", "0", "greater than 0"),
    "decoding.top_p=1.5": ("decoding.top_p", "1.5", "less than or equal to 1"),
    "decoding.top_p=0": ("decoding.top_p", "0", "greater than 0"),
    "decoding.temperature=0": ("decoding.temperature", "0", "greater than or equal to 0.001"),
    "decoding.temperature=.nan": ("decoding.temperature", "nan", "finite number"),
    "decoding.max_new_tokens=256": ("decoding.max_new_tokens", "256", "position_embeddings (256)"),
    "weight.max=-1": ("weight.max", "-1", "greater than 0"),
    "partial.preset=offical": ("partial.preset", "'offical'", "'paper' or 'official'"),
    "scoring.position=shut": ("scoring.position", "'shut'", "'closed' or 'open'"),
    "data.task=hh": ("data.task = 'hh'", "valid: helpdesk, hh_rlhf, gsm8k, math"),
    "data.test_prompts=two": ("data.test_prompts", "'two'", "valid integer"),
    "evaluation.agreement_grid=[]": ("evaluation.agreement_grid", "[]", "at least 1 item"),
    "seed=-1": ("seed", "-1", "greater than or equal to 0"),
    "name=a/b": ("name", "'a/b'", "pattern"),
    "models.architecture.hidden_size=130": ("hidden_size", "130", "num_attention_heads (4)"),
    "models.architecture.num_key_value_heads=3": ("num_key_value_heads", "3", "must divide"),
    "variants.prm_tlt.match=nobody": (
        "variants.prm_tlt.match",
        "'nobody'",
        "valid: prm_sst, prm_no_reference",
    ),
    "variants.orm.truncation=sst": ("variants", "'orm'", "not a valid name"),
    "variants._a.truncation=sst": (
        "variants",
        "'_a'",
        "the first a letter or digit, except policy",
    ),
    "variants.policy.truncation=sst": ("variants", "'policy'", "not a valid name"),
    "search.scorers=[]": ("search.scorers", "[]", "at least 1 item"),
    "search.bon.n=7": ("search.bon.n", "7", "valid: at least 8"),
    "variants.prm_sst.truncation=all": ("variants.prm_sst.truncation", "'all'", "'sst', 'tlt' or"),
    "training.zero_stge=1": ("training.zero_stge", "1", "did you mean 'zero_stage'?"),
    "training.orm.learning_rate=.inf": ("training.orm.learning_rate", "inf", "finite number"),
    "variants.prm_sst.wieght=none": ("variants.prm_sst.wieght", "did you mean 'weight'?"),
    "variants.new.colour=red": (
        "variants.new.colour",
        "'red'",
        "valid: checkpoint, objective, truncation",
    ),
    "trainig.workers=1": ("trainig", "1", "did you mean 'training'?"),
    "data.orm_pair=5": ("data.orm_pair", "5", "did you mean 'orm_pairs'?"),
    "search.cbs.colour=red": (
        "search.cbs.colour",
        "'red'",
        "valid: name, prompts, beams, candidates",
    ),
    "variants=3": ("variants", "3", "not a mapping; valid: {NAME: {FIELD: value}}"),
    "data=3": ("data", "3", "not a mapping; valid: {task: NAME, FIELD: value}"),
    "decoding=hot": ("decoding", "'hot'", "must be a section; valid: fields temperature"),
    "storage.checkpoints_kept=1.5": ("storage.checkpoints_kept", "1.5", "valid integer"),
}


def message(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        config = load_config(file, overrides)
        check_files(config)
        check_checkpoints_exist(config)
    return str(error.value)


def checkpoint(folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_gives_one_message_with_field_value_and_what_is_valid(
    override: str,
) -> None:
    text = message(override)
    assert len(text.splitlines()) == 1, text
    for piece in WRONG[override]:
        assert piece in text, text


def test_two_wrong_values_give_two_lines() -> None:
    text = message("training.zero_stage=4", "seed=-1")
    assert {line.split(" = ")[0] for line in text.splitlines()} == {"training.zero_stage", "seed"}


@pytest.mark.parametrize("field", ["models.policy", "models.orm", "models.reference"])
def test_a_checkpoint_that_is_not_there_is_named(field: str, tmp_path: Path) -> None:
    text = message(f"{field}={tmp_path}/none")
    assert f"{field} = '{tmp_path}/none': no such folder" in text
    assert "valid: a folder with config.json and safetensors, or a hub name" in text


def test_a_variants_checkpoint_is_checked_as_well(tmp_path: Path) -> None:
    text = message(f"variants.mine.checkpoint={tmp_path}/none")
    assert text.startswith("variants.mine.checkpoint = ")


def test_a_checkpoint_folder_needs_its_config_and_safe_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    assert "has neither config.json nor adapter_config.json; valid: a folder" in message(
        f"models.orm={folder}"
    )
    (folder / "config.json").write_text("{}")
    assert "has no *.safetensors; valid: a folder with" in message(f"models.orm={folder}")
    (folder / "model.safetensors").write_bytes(b"")
    check_checkpoints_exist(load_config(None, [f"models.orm={folder}"]))


def test_a_data_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = message("data={task: hh_rlhf, pairs: /none/pairs.jsonl}")
    assert "data.pairs = '/none/pairs.jsonl': no such file; valid: a file or fsspec URI" in text


def test_a_deepspeed_file_that_is_not_there_is_named() -> None:
    text = message("training.deepspeed=configs/none.json")
    assert text == "training.deepspeed = 'configs/none.json': no such file; valid: a JSON file"


def test_offload_needs_the_stage_that_shards_what_is_offloaded() -> None:
    named = "training.deepspeed=configs/deepspeed/zero3_offload.json"
    shown = message(named, "training.zero_stage=2")
    assert "training.zero_stage = 2" in shown and "offload_param, which needs stage 3" in shown
    check_files(load_config(None, [named, "training.zero_stage=3"]))


def test_one_field_of_a_training_may_be_given_alone() -> None:
    training = load_config(None, ["training.implicit.learning_rate=0.5"]).training
    assert (training.implicit.learning_rate, training.implicit.batch_size) == (0.5, 32)
    assert training.implicit.max_steps is None


def test_a_model_that_is_not_trained_is_named_with_those_that_are() -> None:
    config = load_config(
        None,
        [
            "models.policy=/models/policy", "variants.mine.checkpoint=/models/prm",
            "variants.ratio={objective: density_ratio, checkpoint: /models/tuned}",
            "variants.ours={objective: density_ratio, base: /models/base}", "variants.prm_tlt=null",
        ],
    )  # fmt: skip
    valid = "valid: orm, reference, orm_continued, prm_sst, prm_no_reference"
    for name in ("orm", "reference", "prm_sst"):
        check_model_name(config, name)
    for name, reason in {
        "policy": "is not trained, since models.policy sets a checkpoint",
        "mine": "is not trained, since variants.mine.checkpoint sets a checkpoint",
        "ratio": "is not trained, since variants.ratio.checkpoint sets a checkpoint",
        "ours": "is not trained: a density ratio of two existing models",
        "prm_tlt": "no such model",
    }.items():
        with pytest.raises(ConfigError) as error:
            check_model_name(config, name)
        assert str(error.value) == f"{name}: {reason}; {valid}"


def test_a_share_of_0_is_for_a_model_that_is_given(tmp_path: Path) -> None:
    given = ["data.task=hh_rlhf", "data.pairs=x.jsonl", "data.policy_share=0", "data.orm_share=0"]
    config = load_config(None, given)
    check_splits_not_empty(config, ["reference", "variants/prm_sst"])
    for name in ("policy", "orm"):
        with pytest.raises(ConfigError) as error:
            check_splits_not_empty(config, ["reference", name])
        assert str(error.value) == (
            f"data.{name}_share = 0: leaves no pairs to train the {name} on;"
            f" valid: more than 0, or set models.{name} to a checkpoint"
        )
    assert "data.orm_share = -0.1" in message("data.task=hh_rlhf", "data.orm_share=-0.1")
    check_splits_not_empty(load_config(None), ["policy", "orm", "reference"])


def test_shares_that_leave_the_prm_nothing_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("")
    given = ["data.task=hh_rlhf", f"data.pairs={file}", "data.policy_share=0.6"]
    shown = message(*given, "data.orm_share=0.4")
    assert "policy_share + orm_share + reference_share = 1.3" in shown and "less than 1" in shown


def test_a_data_file_of_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    file.write_text("")
    shown = message("data.task=hh_rlhf", f"data.pairs={file}")
    assert "data.pairs" in shown and ".parquet" in shown


@pytest.mark.parametrize(("text", "piece"), [("{lr: 1", "not JSON"), ("[1]", "a JSON object")])
def test_a_deepspeed_file_that_is_no_json_object_is_refused(
    text: str, piece: str, tmp_path: Path
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(text)
    shown = message(f"training.deepspeed={file}")
    assert "training.deepspeed" in shown
    assert piece in shown


def test_a_checkpoint_of_the_users_own_cannot_be_matched(tmp_path: Path) -> None:
    shown = message(f"variants.prm_sst.checkpoint={tmp_path}")
    assert "variants.orm_continued.match = 'prm_sst'" in shown or "prm_tlt.match" in shown
    assert "valid: a variant that this run trains" in shown


def test_a_reference_that_the_run_does_not_make_is_no_scorer(tmp_path: Path) -> None:
    none = [f"variants.{name}=null" for name in ("orm_continued", "prm_tlt", "prm_no_reference")]
    shown = message(*none, f"variants.prm_sst.checkpoint={tmp_path}", "search.scorers=[reference]")
    assert "search.scorers = 'reference'" in shown
    assert "valid: orm, prm_sst" in shown


def test_a_config_file_that_is_not_there_is_named_with_those_that_are() -> None:
    text = message(file=Path("configs/none.yaml"))
    assert "configs/none.yaml: no such file" in text and "smoke.yaml" in text


def test_real_data_without_a_path_is_refused_with_the_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HH_RLHF_PAIRS", "GSM8K_TRAIN", "GSM8K_PAIRS", "GSM8K_TEST"):
        monkeypatch.delenv(name, raising=False)
    pairs = (
        "data.pairs: the environment variable HH_RLHF_PAIRS is not set; valid: HH_RLHF_PAIRS=FILE"
        " before the command, or data.pairs=FILE after it, where FILE is "
    )
    assert message(file=ROOT / "configs" / "hh_small.yaml") == pairs + VALID
    text = message(file=ROOT / "configs" / "gsm8k_small.yaml")
    assert [line.split(" is not set; ")[0] for line in text.splitlines()] == [
        "data.demonstrations: the environment variable GSM8K_TRAIN",
        "data.pairs: the environment variable GSM8K_PAIRS",
        "data.test: the environment variable GSM8K_TEST",
    ]
    load_config(ROOT / "configs" / "hh_small.yaml", ["data.pairs=x.jsonl"])


@pytest.mark.parametrize("override", ["data.task=hh_rlhf", "data={task: hh_rlhf, pairs: null}"])
def test_a_file_that_is_not_set_is_explained(override: str) -> None:
    assert message(override) == f"data.pairs: not set; valid: {VALID}"


def test_another_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_AT_ALL", raising=False)
    assert message("models.policy=${oc.env:NOT_SET_AT_ALL}") == (
        "models.policy: the environment variable NOT_SET_AT_ALL is not set; valid:"
        " NOT_SET_AT_ALL=VALUE before the command, or models.policy=VALUE after it"
    )


def test_an_unknown_key_of_another_tasks_data_names_that_tasks_keys(tmp_path: Path) -> None:
    text = message("data={task: hh_rlhf, pairs: x, policy_shar: 0.2}")
    assert "data.policy_shar" in text and "did you mean 'policy_share'?" in text


@pytest.mark.parametrize("override", ["seed", "training.workers"])
def test_an_override_without_a_value_is_explained(override: str) -> None:
    assert message(override) == f"override '{override}': valid: key.sub=value"


@pytest.mark.parametrize(
    ("text", "piece"),
    [("a: [", "not valid YAML"), ("- 1\n- 2\n", "a mapping of sections"),
     ("seed: ${nowhere}\n", "nowhere")],
)  # fmt: skip
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, piece: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    found = message(file=tmp_path / "bad.yaml")
    assert piece in found and len(found.splitlines()) <= 6


def test_a_base_is_inherited_and_overridden_field_by_field(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "ground.yaml").write_text("seed: 7\nsearch: {cbs: {beams: 3, chunk: 9}}\n")
    (tmp_path / "middle.yaml").write_text("base: ground.yaml\nsearch: {cbs: {beams: 4}}\n")
    (tmp_path / "deep" / "top.yaml").write_text("base: ../middle.yaml\nname: top\n")
    config = load_config(tmp_path / "deep" / "top.yaml", ["search.cbs.candidates=2"])
    cbs = config.search.all_methods["cbs"]
    assert isinstance(cbs, ChunkBeamSearch)
    assert (config.name, config.seed) == ("top", 7)
    assert (cbs.beams, cbs.chunk, cbs.candidates) == (4, 9, 2)


def test_a_base_that_goes_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    assert "its chain of `base` files leads back to it" in message(file=tmp_path / "a.yaml")


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_config_of_the_project_loads(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HH_RLHF_PAIRS", "GSM8K_TRAIN", "GSM8K_PAIRS", "GSM8K_TEST"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
        monkeypatch.setenv(name, str(tmp_path / f"{name}.jsonl"))
    config = load_config(file)
    check_files(config)
    check_checkpoints_exist(config)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    "overrides",
    [
        ["search.cards=null", "weight.max=null", "seed=5"],
        ["variants.more={truncation: tlt, match: prm_sst}"],
        ["variants.prm_tlt=null"],
    ],
    ids=" ".join,
)
def test_a_config_comes_back_from_its_yaml_as_it_was(overrides: list[str], tmp_path: Path) -> None:
    config = load_config(None, overrides)
    (tmp_path / "a.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "a.yaml") == config != load_config(None)


def test_variants_are_merged_over_the_default_ones_and_null_leaves_one_out() -> None:
    config = load_config(
        None, ["variants.prm_sst.weight=none", "variants.prm_tlt=null", "variants.mine.match=null"]
    )
    assert set(config.variants) == {"orm_continued", "prm_sst", "prm_no_reference", "mine"}
    assert config.variants["prm_sst"].weight == "none"
    assert config.variants["prm_sst"].truncation == "sst"


def test_a_training_has_the_defaults_of_the_fields_that_are_not_set() -> None:
    defaults = TrainingConfig()
    fields: dict[str, dict[str, object]] = {
        "policy": {"learning_rate": 0.1}, "orm": {"batch_size": 8},
    }  # fmt: skip
    training = TrainingConfig.model_validate(fields)
    assert training.policy == defaults.policy.model_copy(update=fields["policy"])
    assert training.orm == defaults.orm.model_copy(update=fields["orm"])
    by_epochs = TrainingConfig.model_validate({"policy": {"epochs": 2}}).policy
    assert by_epochs == defaults.policy.model_copy(update={"epochs": 2, "max_steps": None})


def test_what_no_file_says_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("{}\n")
    assert load_config(tmp_path / "empty.yaml") == Config()
    args = Config().search.all_methods["args"]
    assert isinstance(args, Args)
    assert (args.weight, args.k, Config().partial.sst_k) == (1.5, 30, 5)


def test_no_checkpoint_of_the_hub_is_looked_for_where_a_folder_is_meant(tmp_path: Path) -> None:
    config = load_config(None, [f"models.policy={checkpoint(tmp_path / 'policy')}"])
    check_checkpoints_exist(config)


def wrong_model(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_models(load_config(None, overrides))
    return str(error.value)


def test_models_of_the_right_kinds_are_let_through(word_policy: str, word_reward: str) -> None:
    check_models(
        load_config(
            None,
            [f"models.policy={word_policy}", f"models.orm={word_reward}",
             f"models.reference={word_reward}", f"variants.mine.checkpoint={word_reward}",
             f"variants.ratio={{objective: density_ratio, base: {word_policy}}}"],
        )
    )  # fmt: skip


def test_a_checkpoint_without_a_reward_head_is_refused(word_policy: str) -> None:
    for field in ("models.orm", "models.reference", "variants.mine.checkpoint"):
        text = wrong_model(f"{field}={word_policy}")
        assert text.startswith(f"{field} = {word_policy!r}: ") and "no reward head" in text


def test_a_reward_model_is_no_policy(word_reward: str) -> None:
    text = wrong_model(f"models.policy={word_reward}")
    assert text.startswith(f"models.policy = {word_reward!r}: ")
    assert "valid: a causal language model" in text


def test_an_orm_that_cannot_be_trained_on_is_refused_where_variants_are(tmp_path: Path) -> None:
    encoder = reward_kinds.deberta(tmp_path / "deberta")
    assert "needs a head of one label on a causal backbone" in wrong_model(f"models.orm={encoder}")


def test_a_tokenizer_without_a_chat_template_is_refused(word_reward: str, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(word_reward, folder)
    (folder / "chat_template.jinja").unlink()
    text = wrong_model(f"models.orm={folder}")
    assert "no chat template" in text and "valid: a checkpoint folder with a chat_template" in text


def test_math_shepherd_needs_no_template_its_format_is_known(tmp_path: Path) -> None:
    shepherd = reward_kinds.shepherd(tmp_path / "shepherd")
    (tmp_path / "shepherd" / "chat_template.jinja").unlink(missing_ok=True)
    check_models(load_config(None, [f"variants.math={{checkpoint: {shepherd}, kind: step_tag}}"]))
    assert "no reward head" in wrong_model(f"variants.math.checkpoint={shepherd}")


@pytest.mark.parametrize("field", ["weighted_bon", "vote"])
def test_votes_need_answers_to_count(field: str) -> None:
    text = message(f"search.{field}={{n: 4}}")
    assert f"search.{field}" in text and "'helpdesk'" in text


def test_math_is_a_task_whose_answers_votes_count() -> None:
    files = "demonstrations: a.jsonl, pairs: b.jsonl, test: c.jsonl"
    overrides = [f"data={{task: math, {files}, test_prompts: 5}}", "search.vote={answers: math}"]
    config = load_config(None, overrides)
    assert isinstance(config.data, TASKS["math"])
    assert config.search.all_methods["vote"].settings["answers"] == "math"
    assert "data.tset" in message(f"data={{task: math, {files}, tset: 5}}")


VARIANTS = {
    "{objective: dpo, weight: mask}": "variants.new.weight = 'mask': it has no effect",
    "{objective: density_ratio}": "variants.new: a density ratio needs `checkpoint`, `base`",
    "{base: /models/weak}": "variants.new.base = '/models/weak': needs a log ratio",
    "{objective: dpo, base: /models/weak}": "a model that the run trains is compared with",
    "{objective: ppo}": "variants.new.objective = 'ppo'",
    "{objective: dpo, beta: 0}": "variants.new.beta = 0",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_fields_of_a_variant_that_do_not_go_together_are_named(variant: str) -> None:
    assert VARIANTS[variant] in message(f"variants.new={variant}")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("search.step_beam={delimiter: ''}", "search.step_beam.delimiter = ''"),
        ("search.step_beam={beams: 0}", "search.step_beam.beams = 0"),
        ("search.general={granularity: word}", "search.general.granularity = 'word'"),
        ("search.args_stochastic={temperature: 0}", "search.args_stochastic.temperature = 0"),
        ("search.vote={answers: sympy}", "search.vote.answers = 'sympy'"),
    ],
)
def test_fields_of_a_method_are_checked(override: str, told: str) -> None:
    assert told in message(override)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_fields_are_its_section(name: str) -> None:
    kind = METHODS[name]
    if kind.always_runs:
        assert "unknown key" in message(f"search.{name}={{prompts: 3}}")
    elif not kind.needs_answers:
        config = Config.model_validate({"search": {name: {"prompts": 3}}})
        assert config.search.all_methods[name] == kind.model_validate({"prompts": 3})


TWO = "search.methods=[{name: cbs, chunk: 6}, {name: cbs, chunk: 12}]"


def labels(*overrides: str) -> list[str]:
    return list(load_config(None, overrides).search.all_methods)


def test_a_method_may_run_with_several_settings() -> None:
    assert {"cbs", "cbs-chunk6", "cbs-chunk12"} <= set(labels(TWO))
    config = load_config(None, [TWO, "search.cbs=null"])
    chunks = {label: method.settings["chunk"] for label, method in config.search.all_methods.items()
              if label.startswith("cbs")}  # fmt: skip
    assert chunks == {"cbs-chunk6": 6, "cbs-chunk12": 12}
    (one,) = load_config(None, ["search=[{name: cbs, chunk: 6}]"]).search.methods
    assert one.settings["chunk"] == 6


def test_labels_differ_and_do_not_depend_on_other_entries() -> None:
    odd = "{name: general, granularity: step, delimiter: '%s'}"
    listed = ", ".join(odd % text for text in (".", ".-", "\u00e9", "\u00fc", "x" * 300))
    found = [label for label in labels(f"search.methods=[{listed}]") if label.startswith("general")]
    assert len(found) == 5 and all(len(label) <= 80 for label in found)
    assert labels("search=[{name: cbs, prompts: 5}]") == ["base", "greedy", "cbs-prompts5"]
    assert set(labels("search.methods=[{name: cbs, chunk: 9}]")) < set(
        labels("search.methods=[{name: cbs, chunk: 9}, {name: cbs, chunk: 10}]")
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["search=[{name: cbs, chunk: 6}]", "search.scorers=[orm]"],
        ["search.scorers=[orm]", "search=[{name: cbs, chunk: 6}]"],
    ],
)
def test_a_list_of_methods_and_other_fields_go_together(overrides: list[str]) -> None:
    config = load_config(None, overrides)
    assert list(config.search.all_methods) == ["base", "greedy", "cbs-chunk6"]
    assert config.search.scorers == ["orm"]


def test_a_field_of_an_earlier_version_is_read_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert load_config(None, ["search.wave_size=7"]).search.max_concurrent == 7
    assert "search.wave_size is now search.max_concurrent" in capsys.readouterr().err


def test_a_list_of_methods_runs_these_and_the_baselines(tmp_path: Path) -> None:
    file = tmp_path / "listed.yaml"
    file.write_text("search: [{name: cbs, chunk: 6}, {name: cbs, chunk: 12}]\n")
    config = load_config(file)
    assert list(config.search.all_methods) == ["base", "greedy", "cbs-chunk6", "cbs-chunk12"]
    assert load_config_text(tmp_path, to_yaml(config)) == config


def test_a_list_of_methods_keeps_the_other_fields_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("search: {wave_size: 9, scorers: [orm], step_beam: {}}\n")
    (tmp_path / "top.yaml").write_text("base: base.yaml\nsearch: [{name: cbs, chunk: 6}]\n")
    search = load_config(tmp_path / "top.yaml").search
    assert (search.max_concurrent, search.scorers) == (9, ["orm"])
    assert list(search.all_methods) == ["base", "greedy", "cbs-chunk6"]


def load_config_text(folder: Path, text: str) -> Config:
    (folder / "again.yaml").write_text(text)
    return load_config(folder / "again.yaml")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("[{name: cbs}, {name: cbs}]", "search.methods.0: cbs is given twice with the same fields"),
        ("[{name: nope}]", "search.methods.0 = {'name': 'nope'}: name 'nope': no such method;"),
        (
            "[{chunk: 6}]",
            "a method needs a name; valid: {name: ..., FIELD: ...} with a name of bon",
        ),
        ("[{name: cbs, chunk: 0}]", "search.methods.0.chunk = 0"),
        ("[{name: cbs, colour: red}]", "unknown key 'colour'; valid: name, prompts, beams"),
        ("[{name: general, delimiter: x}]", "search.methods.0.delimiter = 'x': it has no effect"),
        ("[{name: vote}]", "have none; valid: search.methods without entry 0"),
        ("[{name: step_beam}]", "search.methods.0.delimiter"),
        ("[cbs]", "search.methods.0 = 'cbs': a method needs a name"),
        ("[null]", "search.methods.0 = None: a method needs a name"),
        ("[[{name: cbs}]]", "search.methods.0 = [{'name': 'cbs'}]: a method needs a name"),
        ("[{name: [a]}]", "name ['a']: no such method"),
        ("[{name: {a: b}}]", "no such method"),
        ("[{name: base}]", "name 'base': no such method"),
    ],
)
def test_what_is_wrong_in_a_list_of_methods_is_told(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_models(load_config(None, [f"search.methods={override}"]))
    assert told in str(error.value)


STEPS_END = [
    f"{name}={{{'granularity: step' if 'granularity' in kind.model_fields else ''}}}"
    for name, kind in METHODS.items()
    if "delimiter" in kind.model_fields
]


@pytest.mark.parametrize("method", STEPS_END)
def test_a_step_must_be_able_to_end(method: str, word_policy: str) -> None:
    for given in ([], [f"models.policy={word_policy}"]):
        told = wrong_model(f"search.{method}", *given)
        assert "delimiter = '\\n': the policy's tokenizer loses this text when it" in told
    check_models(load_config(None, [f"search.{method}", *_with_point(method)]))
    check_models(load_config(None, ["search.general={granularity: sentence}"]))


AGGREGATED = [
    "variants.prm_sst.aggregation=min", "variants.v={objective: dpo, aggregation: mean}",
    "variants.orm_continued.aggregation=last",
]  # fmt: skip


@pytest.mark.parametrize("override", AGGREGATED)
def test_a_trained_scorers_steps_must_be_able_to_end(override: str, word_policy: str) -> None:
    field = override.split("=")[0].removesuffix(".aggregation")
    for given in ([], [f"models.policy={word_policy}"]):
        told = wrong_model(override, *given)
        assert told.startswith(f"{field}.aggregation = ") and "that end with '\\n\\n'" in told
        check_models(load_config(None, [override, f"{field}.step_delimiter=.", *given]))
    files = "data={task: hh_rlhf, pairs: x.jsonl}"
    check_models(load_config(None, [override, files]))  # its byte-level tokens write any text


def test_an_aggregated_checkpoint_has_steps_by_its_own_tokenizer(word_reward: str) -> None:
    given = f"variants.v={{checkpoint: {word_reward}, aggregation: min, step_delimiter: DELIMITER}}"
    assert wrong_model(given.replace("DELIMITER", '"\\n"')).startswith("variants.v.aggregation = ")
    check_models(load_config(None, [given.replace("DELIMITER", "'.'")]))


def test_a_given_policy_needs_room_for_a_prompt(word_policy: str) -> None:
    told = wrong_model(f"models.policy={word_policy}", "decoding.max_new_tokens=256")
    assert told == (
        "decoding.max_new_tokens = 256: the context of models.policy is 256 tokens, and a"
        " prompt needs at least one; valid: at most 255"
    )


def test_a_ratio_to_the_runs_own_policy_is_of_its_words(word_policy: str, byte_reward: str) -> None:
    other = Path(byte_reward).with_name("byte_policy")
    for part in ("base", "checkpoint"):
        told = wrong_model(f"variants.r={{objective: density_ratio, {part}: {other}}}")
        assert told.startswith(f"variants.r.{part} = ") and "valid: a model with the tokens" in told
        check_models(
            load_config(None, [f"variants.r={{objective: density_ratio, {part}: {word_policy}}}"])
        )


def test_what_a_preset_contradicts_is_told_as_the_configs(word_reward: str) -> None:
    told = wrong_model(
        f"variants.m={{checkpoint: {word_reward}, preset: math-shepherd, kind: sequence}}"
    )
    assert told.startswith("variants.m: kind = 'sequence': preset 'math-shepherd'")


@pytest.mark.parametrize(
    ("overrides", "looked"),
    [
        ([], False), (["search.cards=null"], False), (["models.orm=a/b"], True),
        (["variants.v.checkpoint=a/b"], True), (["search.step_beam={delimiter: .}"], True),
        (["variants.prm_sst={aggregation: min, step_delimiter: .}"], True),
        (["search.engine=vllm"], True), (["search.dtype=float64"], True),
        (["cluster.reward_cache_mib=64"], True),
    ],
)  # fmt: skip
def test_checkpoints_are_looked_into_where_they_decide(overrides: list[str], looked: bool) -> None:
    config = load_config(None, overrides)
    assert reads_checkpoints(config) == looked
    if not looked:  # nothing is left out
        check_models(config)


def _with_point(method: str) -> list[str]:
    return [f"search.{method.partition('=')[0]}.delimiter=."]


def test_vllm_is_refused_for_scorers_of_other_kinds(vllm: None) -> None:
    overrides = ["search.engine=vllm", "search.cards=null", "variants.dpo={objective: dpo}"]
    said = r"search\.engine = 'vllm': .* this one is of kind 'log_ratio' \(scorer dpo\)"
    with pytest.raises(ConfigError, match=said):
        check_models(load_config(None, overrides))


@pytest.mark.parametrize(
    "overrides",
    [["search.engine=vllm", "search.cards=null"], ["variants.dpo={objective: dpo}"]],
)
def test_other_dtypes_are_refused_where_they_are_not_computed(
    vllm: None, overrides: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"search\.dtype = 'float64': scorer .*valid: float32"):
        check_models(load_config(None, ["search.dtype=float64", *overrides]))
    check_models(load_config(None, ["search.dtype=float64"]))


def test_vllm_is_taken_where_it_runs(vllm: None) -> None:
    check_models(load_config(None, ["search.engine=vllm", "search.cards=null"]))


@pytest.mark.parametrize("last", [True, False])
def test_another_task_does_not_inherit_the_fields_of_the_first(tmp_path: Path, last: bool) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("data: {orm_pairs: 7, test_prompts: 5}\n")
    (tmp_path / "over.yaml").write_text("base: base.yaml\ndata: {task: hh_rlhf, pairs: a.jsonl}\n")
    over = load_config(tmp_path / "over.yaml")
    assert over.data.task_name() == "hh_rlhf" and over.data.test_prompts == 100

    overrides = ["data.pairs=b.jsonl", "data.task=hh_rlhf"]
    other = load_config(base, overrides if last else overrides[::-1])
    assert other.data.task_name() == "hh_rlhf" and other.data.test_prompts == 100
    same = load_config(base, ["data.task=helpdesk", "data.prm_pairs=9"])
    assert same.data.row_counts is not None and same.data.row_counts["orm"] == 7
