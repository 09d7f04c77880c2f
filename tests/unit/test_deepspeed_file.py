"""DeepSpeed's file: what DeepSpeed would ignore, or say once the workers are up, is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.deepspeed_file import (
    DeepSpeedFile,
    OffloadOptimizer,
    OffloadParam,
    ZeroFile,
    check_deepspeed,
)
from orchestrator.config.load import ROOT, ConfigError, load_config
from orchestrator.config.training import TrainingConfig

GOOD = json.loads((ROOT / "configs" / "deepspeed" / "default.json").read_text())


def training(folder: Path, content: str | bytes | dict[str, Any], stage: int = 1) -> TrainingConfig:
    file = folder / "deepspeed.json"
    text = json.dumps(content) if isinstance(content, dict) else content
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    given = [f"training.deepspeed={file}", f"training.zero_stage={stage}"]
    return load_config(None, given).training


def refused(folder: Path, content: str | bytes | dict[str, Any], stage: int = 1) -> str:
    given = training(folder, content, stage)
    with pytest.raises(ConfigError) as error:
        check_deepspeed(given)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and len(text) < 2_500
    return text


@pytest.mark.parametrize(
    ("content", "piece"),
    [
        ("[1]", "a JSON object of settings"),
        ("5", "a JSON object of settings"),
        ("null", "a JSON object of settings"),
        ("{lr: 1", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": ' + "9" * 5_000 + "}", "not JSON"),
        (" " * 2_000_000, "at most 1 MB"),
    ],
)
def test_what_is_no_json_object_is_refused(
    content: str | bytes, piece: str, tmp_path: Path
) -> None:
    assert piece in refused(tmp_path, content)


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"gradient_cliping": 1.0}, "its gradient_cliping = 1.0 is not a setting", "gradient_clipping"),
    ({"nebula": {}}, "its nebula = {} is not a setting", "valid: optimizer"),
    ({"optimizer": {"type": "AdamW", "parms": {}}}, "its optimizer.parms = {}", "valid: type"),
    ({"optimizer": {"type": "AdamW", "params": {"beta": 1}}}, "its optimizer.params.beta", "betas"),
    ({"optimizer": {"type": "AdamX"}}, "its optimizer.type = 'AdamX': no such optimizer", "adamw"),
    ({"optimizer": {}}, "its optimizer.type: missing", "default.json"),
    ({"optimizer": None}, "its optimizer = None: ", "dictionary"),
    ({"optimizer": {"type": "AdamW", "params": {"betas": [0.9]}}}, "betas = [0.9]: ", "2 items"),
    ({"optimizer": {"type": "AdamW", "params": {"eps": True}}}, "eps = True: ", "valid number"),
    ({"zero_optimization": {"stge": 1}}, "its zero_optimization.stge = 1", "valid: stage"),
    ({"zero_optimization": [1]}, "its zero_optimization = [1]: ", "dictionary"),
    ({"zero_optimization": {"overlap_comm": 1}}, "overlap_comm = 1: ", "true or false"),
    ({"zero_optimization": {"offload_optimizer": {"device": "disk"}}}, "= 'disk': ", "'nvme'"),
    ({"gradient_clipping": float("nan")}, "its gradient_clipping = nan: ", "finite"),
    ({"gradient_clipping": -1}, "its gradient_clipping = -1: ", "greater than or equal to 0"),
    ({"bf16": {"enabled": True}}, "its bf16 = {'enabled': True} has no effect", "training.prec"),
    ({"fp16": {"enabled": "auto"}}, "its fp16 = ", "training.precision decides"),
]


@pytest.mark.parametrize(("change", "begin", "piece"), CASES, ids=lambda case: str(case)[:30])
def test_a_setting_that_cannot_be_is_named(
    change: dict[str, Any], begin: str, piece: str, tmp_path: Path
) -> None:
    text = refused(tmp_path, {**GOOD, **change})
    assert text.startswith(f"training.deepspeed = '{tmp_path}/deepspeed.json': ")
    assert begin in text and piece in text, text


def test_a_file_without_an_optimizer_would_train_nothing(tmp_path: Path) -> None:
    assert "its optimizer: missing" in refused(tmp_path, {"gradient_clipping": 1.0})


def test_what_deepspeed_takes_is_taken(tmp_path: Path) -> None:
    zero = {"stage": "auto", "reduce_bucket_size": "auto", "overlap_comm": False,
            "offload_optimizer": {"device": "cpu"}}  # fmt: skip
    more = {"zero_optimization": zero, "comms_logger": {"enabled": True}, "steps_per_print": 10}
    check_deepspeed(training(tmp_path, {**GOOD, **more}))
    check_deepspeed(training(tmp_path, {**GOOD, "optimizer": {"type": "ADAMW"}}))
    for file in (ROOT / "configs" / "deepspeed").glob("*.json"):
        check_deepspeed(TrainingConfig(deepspeed=str(file), zero_stage=3))


def test_the_settings_of_zero_are_those_of_the_deepspeed_that_is_installed() -> None:
    from deepspeed.runtime.zero import config, offload_config

    def names(kind: Any) -> set[str]:
        fields = kind.model_fields.items()
        return {
            field.alias or name
            for name, field in fields
            if not (field.json_schema_extra or {}).get("deprecated")
        }

    assert set(ZeroFile.model_fields) == names(config.DeepSpeedZeroConfig)
    assert set(OffloadParam.model_fields) == names(offload_config.DeepSpeedZeroOffloadParamConfig)
    optimizer = offload_config.DeepSpeedZeroOffloadOptimizerConfig
    assert set(OffloadOptimizer.model_fields) == names(optimizer)


def test_the_top_settings_are_words_of_the_deepspeed_that_is_installed() -> None:
    import deepspeed

    root = Path(deepspeed.__file__).parent
    text = "".join(file.read_text() for file in root.rglob("*.py") if "const" in file.name)
    text += "".join(file.read_text() for file in root.rglob("config*.py"))
    for name in DeepSpeedFile.model_fields:
        assert f'"{name}"' in text or f"'{name}'" in text, name
