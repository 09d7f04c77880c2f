"""Where a sweep writes and reads: what cannot be is told before anything starts."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.config.checks import check_checkpoints_exist, check_files
from orchestrator.config.load import ConfigError, load_config
from orchestrator.config.output_paths import check_output, check_target, existing

HH = "data={task: hh_rlhf, pairs: PATH}"


def refused(output_dir: str | None, cwd: Path, *overrides: str) -> str:
    given = [] if output_dir is None else [f"output_dir={output_dir}"]
    config = load_config(None, [*given, *overrides])
    with pytest.raises(ConfigError) as error:
        check_output(config, cwd)
    text = str(error.value)
    assert len(text.splitlines()) == 1 and "; valid: " in text
    return text


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nope://bucket/x", "Protocol not known: nope"),
        ("s3://bucket/x", "s3fs"),
        ("https://example.org/x", "https:// cannot be written"),
        ("simplecache::nope://x", "nope"),
        ("/dev/null", "/dev/null is not a folder"),
        ("/dev/null/x", "/dev/null is not a folder"),
        ("/proc/x", "/proc is not on a disk"),
        ("/sys/x", "/sys is not on a disk"),
        ("~nobody_at_all/x", "home"),
        ("/tmp/" + "x" * 300, "a name in it is longer than 255 bytes"),
        ("/tmp" + "/xxxxxxxxx" * 420, "longer than 4096 bytes"),
        ('"/tmp/a\\0b"', "character"),
    ],
)
def test_an_output_folder_that_cannot_be_is_refused(
    place: str, reason: str, tmp_path: Path
) -> None:
    if place.startswith("s3:") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed here")
    text = refused(place, tmp_path)
    assert text.startswith("output_dir = '") and reason in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        assert f"{tmp_path}/file is not a folder" in refused(place, tmp_path)
    (tmp_path / "runs").write_text("")
    assert "output_dir = 'runs/helpdesk': " in refused(None, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "no permission to write" in refused("closed/x", tmp_path)


def test_a_folder_that_can_be_made_is_not_made_yet(tmp_path: Path) -> None:
    for place in ("a/b/c", str(tmp_path / "x"), "memory://bucket/x", f"file://{tmp_path}/y"):
        check_output(load_config(None, [f"output_dir={place}"]), tmp_path)
    check_output(load_config(None), tmp_path)
    assert list(tmp_path.iterdir()) == [] and existing(tmp_path / "a" / "b") == tmp_path


def test_more_free_disk_than_the_disk_has_is_refused(tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path).total / 2**30
    text = refused("x", tmp_path, f"storage.free_gib={2 * disk:.0f}")
    assert text.startswith("storage.free_gib = ") and f"{disk:,.1f} GiB" in text
    check_output(load_config(None, ["output_dir=x", f"storage.free_gib={disk / 2}"]), tmp_path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nope://x.jsonl", "Protocol not known: nope"),
        ("/none/x.jsonl", "no such file"),
        ("/dev/null", "unknown format"),
        ("x" * 300 + ".jsonl", "no such file"),
        ('"a\\0b.jsonl"', "no such file"),
        ("~nobody_at_all/x.jsonl", "no such file"),
        ("'.jsonl'", "no such file"),
    ],
)
def test_a_data_file_that_cannot_be_is_refused(path: str, reason: str) -> None:
    config = load_config(None, [HH.replace("PATH", path)])
    with pytest.raises(ConfigError, match=r"^data\.pairs = ") as error:
        check_files(config)
    assert reason in str(error.value) and "; valid: " in str(error.value)


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 300 + "/y", "/tmp/" + "x" * 300, '"a\\0b"', "~nobody_at_all", "a/b/c"]
)
def test_a_checkpoint_that_no_folder_is_called_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = load_config(None, [f"models.orm={name}"])
    with pytest.raises(ConfigError, match=r"(?s)^models.orm = .*; valid: a folder with"):
        check_checkpoints_exist(config)


def test_a_target_is_a_file_that_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for good in ("file", "new", "deep/new"):
        check_target("--out", tmp_path / good)
    reasons = {
        str(tmp_path): "is a folder",
        f"{tmp_path}/file/x": f"{tmp_path}/file is not a folder",
        "/dev/null/x": "/dev/null is not a folder",
        "/proc/x": "/proc is not on a disk",
        "a\0b": "contains control characters",
        f"{tmp_path}/{'x' * 300}": "a name in it is longer than 255 bytes",
        "/tmp" + "/xxxxxxxxx" * 420: "the path is longer than 3896 bytes",
    }
    for bad, reason in reasons.items():
        with pytest.raises(ConfigError) as error:
            check_target("--out", Path(bad))
        text = str(error.value)
        assert text.startswith("--out = ")
        assert text.endswith(f": {reason}; valid: a file in a writable folder")
