"""Values of a config as people write them, and as they should not: one line with field and value.

What a fuzzer found to pass, to crash or to come out late stands here; `config_fuzzer.py` goes on.
"""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from orchestrator.config.errors import SHOWN, shown
from orchestrator.config.load import ROOT, ConfigError, load_config, to_yaml
from orchestrator.fields.types import SEEDS


def message(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(file, overrides)
    text = str(error.value)
    assert all(len(line) < 2_000 for line in text.splitlines())
    return text


# Override -> what its message begins with, and a further piece.
WRONG = {
    "weight.max=yes": ("weight.max = 'yes': ", "valid number"),
    "weight.max=true": ("weight.max = True: ", "valid number"),
    "seed=true": ("seed = True: ", "valid integer"),
    "seed=1:30": ("seed = '1:30': ", "valid integer"),
    "seed=1_000": ("seed = '1_000': ", "valid integer"),
    "seed='yes'": ("seed = 'yes': ", "valid integer"),
    "training.workers=off": ("training.workers = 'off': ", "valid integer"),
    "training.zero_stage=true": ("training.zero_stage = True: ", "valid integer"),
    "training.gradient_checkpointing=yes": ("training.gradient_checkpointing = 'yes'", "or false"),
    "training.gradient_checkpointing=1": ("training.gradient_checkpointing = 1", "true or false"),
    "chat.fold_system=on": ("chat.fold_system = 'on'", "true or false"),
    "evaluation.agreement_grid=[true]": ("evaluation.agreement_grid.0 = True", "valid integer"),
    "search.tbs.chunk=true": ("search.tbs.chunk = True", "valid integer"),
    "models.orm_reading.score_at=true": ("models.orm_reading.score_at = True", "a string or"),
    "variants.v.score_at=false": ("variants.v.score_at = False", "a string or"),
    "training=[1, 2]": ("training = [1, 2]: must be a section; valid: fields workers,", ""),
    "training.orm=[1]": ("training.orm = [1]: must be a section; valid: fields learning", ""),
    "search=[]": ("search = []: must be a section; valid: fields scorers,", ""),
    "search.cbs=7": ("search.cbs = 7: must be a section; valid: fields name, prompts, beams", ""),
    "search.step_beam=[1]": ("search.step_beam = [1]: must be a section; valid: fields", ""),
    "models=null": ("models = None: must be a section; valid: fields policy,", ""),
    "data=[a]": ("data = ['a']: not a mapping; valid: {task: NAME, FIELD: value}", ""),
    'data.task="\\n\\n"': ("data.task = '\\n\\n': no such task; valid: helpdesk, hh_rlhf", ""),
    "data.task=null": ("data.task = 'None': no such task; valid: helpdesk", ""),
    "data=null": ("data = None: not a mapping; valid: {task: NAME, FIELD: value}", ""),
    "variants=[a]": ("variants = ['a']: not a mapping; valid: {NAME: {FIELD: value}}", ""),
    "variants.v=[a]": ("variants.v = ['a']: must be a section; valid: fields checkpoint,", ""),
    "variants.prm_sst=5": ("variants.prm_sst = 5: must be a section; valid: fields chec", ""),
    "search.scorers=orm": ("search.scorers = 'orm': ", "valid list"),
    "search.scorers=[orm,orm]": ("search.scorers = ['orm', 'orm']: ", "orm appears twice"),
    "evaluation.agreement_grid=[5,10,5]": ("evaluation.agreement_grid = [5, 10, 5]", "5 appears"),
    "seed=" + "9" * 5000: ("override 'seed=999", "seed = 9999999999999999999999999999"),
    "weight.max=" + "1" * 41: ("override 'weight.max=111", "41 digits; valid: at most 40"),
    "weight.max=" + "1" * 39: ("weight.max = 111", "less than or equal to 1000000000"),
    f"seed={SEEDS}": (f"seed = {SEEDS}: ", f"less than {SEEDS}"),
    "training.workers=1e300": ("training.workers = 1e+300: ", "integer"),
    "search.cbs.beams=3000000000": ("search.cbs.beams = 3000000000: ", "less than or equal to"),
    "decoding.temperature=1e-30": ("decoding.temperature = 1e-30: ", "or equal to 0.001"),
    "search.args.weight=1e300": ("search.args.weight = 1e+300: ", "less than or equal to"),
    "models.architecture.initializer_range=1e30": ("models.architecture.initializer_range", "10"),
    "partial.sst_k=1000000": ("partial.sst_k = 1000000: ", "less than or equal to 10000"),
    "seed=" + "[" * 800 + "]" * 800: ("override 'seed=[[[", "nested deeper than"),
    "seed={a: {b: 1}}": ("seed = {'a': {'b': 1}}: ", "valid integer"),
    "a." * 30 + "b=1": ("override 'a.a.", "valid: key.sub=value"),
    "=5": ("override '=5': valid: key.sub=value", ""),
    "seed..x=5": ("override 'seed..x=5': valid: key.sub=value", ""),
    "output_dir=''": ("output_dir = '': ", "at least 1 character"),
    "tracking.uri=''": ("tracking.uri = '': ", "at least 1 character"),
    "models.policy=''": ("models.policy = '': ", "at least 1 character"),
    "variants.v.step_delimiter=''": ("variants.v.step_delimiter = '': ", "at least 1 character"),
    "name=" + "n" * 300: ("name = 'nnn", "at most 100 characters"),
    "variants." + "v" * 300 + ".weight=none": ("variants: 'vvv", "at most 100"),
    "output_dir=" + "x" * 9000: ("output_dir = 'xxx", "at most 8,192 characters"),
    "name=🙂": ("name = '🙂': ", "pattern"),
    "name=\udc80": ("override 'name=\\udc80': ", "not valid YAML"),
    'name="\\ud800"': ("override ", "name: not valid Unicode"),
    "name=${nowhere}": ("config: ", "nowhere"),
    "name=${name}": ("config: ", ""),
    "name=" + "${" * 800 + "x" + "}" * 800: ("name = '${${", "too many references"),
    "output_dir=${oc.env:HOME": ("config: ", ""),
    "training={workers: 2, workers: 3}": ("override ", "training.workers: appears twice"),
    "training={1: 2}": ("override ", "training: key 1 is not a string"),
}


@pytest.mark.parametrize("override", WRONG, ids=lambda text: ascii(text[:40]))
def test_a_wrong_value_begins_its_line_with_field_and_value(override: str) -> None:
    begin, piece = WRONG[override]
    text = message(override)
    assert len(text.splitlines()) == 1, text
    assert text.startswith(begin), text
    assert piece in text, text


def test_numbers_are_those_of_yaml_1_2() -> None:
    config = load_config(
        None, ["seed=010", "weight.max=1e1", "training.workers=0x2", "partial.sst_k=3.0"]
    )
    assert (config.seed, config.weight.max, config.training.workers) == (10, 10.0, 2)
    assert config.partial.sst_k == 3


def test_what_an_environment_variable_gives_is_read_as_yaml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "seed: ${oc.env:SEED}\n"
        "weight: {max: '${oc.env:MOST}', normalize: '${oc.env:NORMALIZE,true}'}\n"
    )
    monkeypatch.setenv("SEED", "010")
    monkeypatch.setenv("MOST", "1.5")
    config = load_config(file)
    assert (config.seed, config.weight.max, config.weight.normalize) == (10, 1.5, True)
    monkeypatch.setenv("MOST", "yes")
    assert message(file=file).startswith("weight.max = 'yes': ")


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("seed: 1\nseed: 2\n", "seed: appears twice"),
        ("a: " + "[" * 800, "nested deeper than 20 levels"),
        ("base: [helpdesk.yaml]\n", "base = ['helpdesk.yaml']: not a file name"),
        ("base: nowhere.yaml\n", "bad.yaml: base = "),
        ("training: [1]\n", "training = [1]: must be a section"),
        ("just a text\n", "a mapping of sections"),
        ("x: " + "y" * 900_000, "at most 200,000 characters"),
        ("seed: 5\n" * 2_000, "appears twice"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_is_refused_with_its_name(text: str, piece: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert piece in message(file=tmp_path / "bad.yaml")


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"seed: \xff\xfe\n")
    assert "bad.yaml" in message(file=tmp_path / "bad.yaml")
    for name in ("x" * 5_000, "a\0b", str(tmp_path)):
        assert message(file=Path(name)).startswith("--config ")
    (tmp_path / "marked.yaml").write_text("\ufeffseed: 5\n")
    assert load_config(tmp_path / "marked.yaml").seed == 5


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"base: {i + 1}.yaml\n")
    assert "at most 10 files" in message(file=tmp_path / "0.yaml")


def test_a_later_override_takes_the_place_of_an_earlier_one() -> None:
    config = load_config(None, ["search.cbs={beams: 2}", "search.cbs.chunk=3", "seed=1", "seed=2"])
    cbs = config.search.all_methods["cbs"].settings
    assert (cbs["beams"], cbs["chunk"], config.seed) == (2, 3, 2)
    assert cbs["candidates"] == 4, "of the file"
    again = load_config(None, ["search.cbs=null", "search.cbs.chunk=3"]).search
    settings = again.all_methods["cbs"].settings
    assert (settings["chunk"], settings["beams"]) == (3, 8)


def test_a_variant_may_be_named_as_a_task() -> None:
    assert message("variants.math.colour=red").startswith("variants.math.colour = 'red': unknown")


@pytest.mark.parametrize("text", ["yes", "010", "0o17", "1e3", "08", "${x}", "a\\${b}", "~", "\n"])
def test_any_text_comes_back_from_the_written_config(text: str, tmp_path: Path) -> None:
    escaped = text.replace("${", "\\${") if "\\" not in text else "a\\\\\\${b}"
    config = load_config(None, [f"search.step_beam.delimiter={yaml_quoted(escaped)}"])
    assert config.search.all_methods["step_beam"].settings["delimiter"] == text
    (tmp_path / "a.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "a.yaml") == config


def yaml_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace("\n", "\\n") + '"'


def test_a_long_value_is_shown_by_its_ends() -> None:
    assert shown("x") == "'x'"
    long = shown("a" * 5_000 + "b")
    assert len(long) < SHOWN + 40 and long.endswith("ab' (5,003 characters)")
    assert "digits" in shown(10**5000)


def test_the_shipped_configs_are_read_as_omegaconf_read_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orchestrator.config.load import _read, _resolved

    for name in ("HH_RLHF_PAIRS", "GSM8K_TRAIN", "GSM8K_PAIRS", "GSM8K_TEST", "SMOLLM2"):
        monkeypatch.setenv(name, f"{tmp_path}/{name}.jsonl")
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        theirs = OmegaConf.load(file)
        assert isinstance(theirs, DictConfig)
        base = theirs.pop("base", None)
        if base is not None:
            merged = OmegaConf.merge(OmegaConf.load(file.parent / base), theirs)
        else:
            merged = theirs
        assert _resolved(_read(file, ())) == OmegaConf.to_container(merged, resolve=True)
