"""The tracker against a real MLflow store on SQLite: resume, limits, what is left out or masked."""

import math
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from orchestrator.masking import mask_secrets
from orchestrator.tracking.entries import flat_params, legal_name
from orchestrator.tracking.mlflow_tracker import RunRef, Tracker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database that does not exist yet, in a folder that does not either."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/helpdesk/mlflow.db"


@pytest.fixture(scope="module")
def tracker(store: str) -> Tracker:
    return Tracker(store, "helpdesk")


@pytest.fixture(scope="module")
def client(store: str, tracker: Tracker) -> MlflowClient:
    return MlflowClient(tracking_uri=store)


def new_sweep(tracker: Tracker, key: str) -> RunRef:
    return tracker.start_sweep(key, key, {"seed": 1}, "seed: 1\n")


def children(client: MlflowClient, tracker: Tracker, sweep: RunRef) -> list[str]:
    query = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{tracker.run_id(sweep)}'"
    return [run.info.run_id for run in client.search_runs([tracker.experiment_id], query)]


def test_a_resumed_sweep_finds_its_runs_and_makes_no_second_copy(
    store: str, tracker: Tracker, client: MlflowClient
) -> None:
    sweep = new_sweep(tracker, "resumed")
    done = tracker.stage_run(sweep, "orm", "key-orm")
    tracker.finish(done, "FINISHED")
    half = tracker.stage_run(sweep, "search/bon/orm", "key-bon")
    tracker.log(half, metrics={"resolved": 0.5})
    tracker.finish(half, "KILLED")
    tracker.finish(sweep, "FAILED")

    again = Tracker(store, "helpdesk")  # the driver's next process
    assert again.experiment_id == tracker.experiment_id
    assert again.run_id(new_sweep(again, "resumed")) == tracker.run_id(sweep)
    for name, key, run in (("orm", "key-orm", done), ("search/bon/orm", "key-bon", half)):
        assert again.run_id(again.stage_run(sweep, name, key)) == tracker.run_id(run)
    ids = [tracker.run_id(run) for run in (done, half)]
    assert sorted(children(client, again, sweep)) == sorted(ids)
    assert again.is_finished(done)
    status = {run: client.get_run(tracker.run_id(run)).info.status for run in (sweep, done, half)}
    assert status == {sweep: "RUNNING", done: "FINISHED", half: "RUNNING"}


def test_other_keys_and_other_sweeps_get_runs_of_their_own(
    tracker: Tracker, client: MlflowClient
) -> None:
    first, second = new_sweep(tracker, "one"), new_sweep(tracker, "two")
    runs = [
        tracker.stage_run(first, "orm", "a"),
        tracker.stage_run(first, "orm", "b"),
        tracker.stage_run(second, "orm", "a"),
    ]
    assert len({tracker.run_id(run) for run in (first, second, *runs)}) == 5
    assert len(children(client, tracker, first)) == 2


def test_a_run_deleted_by_the_user_is_made_anew(tracker: Tracker, client: MlflowClient) -> None:
    sweep = new_sweep(tracker, "deleted")
    deleted = tracker.run_id(sweep)
    client.delete_run(deleted)
    assert tracker.run_id(new_sweep(tracker, "deleted")) != deleted


def test_an_exported_run_id_does_not_disturb(
    store: str, tracker: Tracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = new_sweep(tracker, "foreign")
    monkeypatch.setenv("MLFLOW_RUN_ID", tracker.run_id(foreign))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    other = Tracker(store, "helpdesk")
    sweep = new_sweep(other, "own")
    cell = other.stage_run(sweep, "base", "k")
    other.log(cell, {"method": "base"}, {"reward": 1.5})
    assert len({other.run_id(run) for run in (foreign, sweep, cell)}) == 3
    assert client.get_run(tracker.run_id(cell)).info.experiment_id == tracker.experiment_id
    assert client.get_run(tracker.run_id(foreign)).data.metrics == {}


def test_more_than_one_call_may_hold_is_logged_whole(
    tracker: Tracker, client: MlflowClient
) -> None:
    run = new_sweep(tracker, "many")
    metrics: dict[str, float | None] = {f"m/{i}": float(i) for i in range(2500)}
    params = {f"p{i}": i for i in range(250)}
    tags = {f"t{i}": i for i in range(150)}
    tracker.log(run, params, metrics, tags)
    data = client.get_run(tracker.run_id(run)).data
    assert data.metrics == metrics
    assert {name: data.params[name] for name in params} == {n: str(v) for n, v in params.items()}
    assert {name: data.tags[name] for name in tags} == {n: str(v) for n, v in tags.items()}


def test_logging_the_same_again_adds_no_point_and_a_new_value_becomes_the_latest(
    tracker: Tracker, client: MlflowClient
) -> None:
    run = new_sweep(tracker, "idempotent")
    for _ in range(2):
        tracker.log(run, metrics={"reward": 0.25})
    assert [point.value for point in client.get_metric_history(tracker.run_id(run), "reward")] == [
        0.25
    ]
    tracker.log(run, metrics={"reward": 0.125})
    assert client.get_run(tracker.run_id(run)).data.metrics["reward"] == 0.125


def test_values_that_are_not_numbers_to_show_are_left_out(
    tracker: Tracker, client: MlflowClient
) -> None:
    run = new_sweep(tracker, "not-measured")
    tracker.log(run, metrics={"a": math.nan, "b": None, "c": math.inf, "d": 0.0})
    tracker.log_series(run, {"loss": [(0, 1.0), (1, math.nan), (2, None), (3, 0.5)]})
    assert client.get_run(tracker.run_id(run)).data.metrics == {"d": 0.0, "loss": 0.5}


def test_a_curve_cut_off_in_the_middle_is_completed_without_double_steps(
    tracker: Tracker, client: MlflowClient
) -> None:
    run = new_sweep(tracker, "curve")
    curve = [(step, 1.0 / (step + 1)) for step in range(1200)]
    tracker.log_series(run, {"loss": curve[:700]})
    tracker.log_series(run, {"loss": curve})
    points = client.get_metric_history(tracker.run_id(run), "loss")
    assert sorted((point.step, point.value) for point in points) == curve


def test_a_changed_param_keeps_its_first_value_and_shows_the_new_one_as_a_tag(
    tracker: Tracker, client: MlflowClient
) -> None:
    run = new_sweep(tracker, "changed")
    tracker.log(run, {"training": {"lr": 0.1, "steps": 5}})
    tracker.log(run, {"training": {"lr": 0.2, "steps": 5}, "new": True})
    data = client.get_run(tracker.run_id(run)).data
    assert data.params == {"seed": "1", "training.lr": "0.1", "training.steps": "5", "new": "True"}
    changes = {tag: value for tag, value in data.tags.items() if tag.startswith("changed_param.")}
    assert changes == {"changed_param.training.lr": "0.2"}


def test_no_secret_of_an_address_reaches_the_store(tracker: Tracker, client: MlflowClient) -> None:
    secret = "hunter2"
    address = f"https://me:{secret}@host/v1?api_key={secret}&n=1"
    run = tracker.start_sweep(
        "secret", "secret", {"judge": {"endpoints": [address]}}, f"judge: {address}\n"
    )
    tracker.log(run, tags={"judge": address})
    data = client.get_run(tracker.run_id(run)).data
    config = Path(client.download_artifacts(tracker.run_id(run), "config.yaml")).read_text()
    assert data.params["judge.endpoints"] == '["https://***@host/v1?api_key=***&n=1"]'
    assert secret not in f"{data.params}{data.tags}{config}"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("s3://AKIA:p@ss@bucket/x", "s3://***@bucket/x"),
        (
            "postgresql+psycopg://u:p@h/db and http://t@h",
            "postgresql+psycopg://***@h/db and http://***@h",
        ),
        ("http://host/a@b", "http://host/a@b"),
        ("mail me@example.org", "mail me@example.org"),
        ("s3://b?secret_key=s&region=r", "s3://b?secret_key=***&region=r"),
    ],
)
def test_only_the_secret_part_of_an_address_is_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


def test_a_long_param_is_cut_after_masking() -> None:
    kept = flat_params({"p": "x" * (MAX_PARAM_VAL_LENGTH - 12) + " http://u:hunter2@h"})["p"]
    assert len(kept) == MAX_PARAM_VAL_LENGTH
    assert kept.endswith(" http://***@")


@pytest.mark.parametrize(
    ("name", "legal"),
    [("win@1", "win_1"), ("ar/rm-sc (t=5)", "ar/rm-sc _t_5_"), ("/a//../b", "a/b"), ("..", "_")],
)
def test_names_become_what_mlflow_takes(
    tracker: Tracker, client: MlflowClient, name: str, legal: str
) -> None:
    assert legal_name(name) == legal
    run = new_sweep(tracker, "names")
    tracker.log(run, metrics={name: 1.0})
    assert client.get_run(tracker.run_id(run)).data.metrics[legal] == 1.0


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a@b' and 'a#b' both become 'a_b'"):
        flat_params({"a@b": 1, "a#b": 2})


def test_artifacts_land_beside_the_database(
    store: str, tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    run = new_sweep(tracker, "artifacts")
    (tmp_path / "table.txt").write_text("1")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.svg").write_text("<svg/>")
    tracker.log(run, artifacts=[tmp_path / "table.txt", tmp_path / "figures"])
    assert {item.path for item in client.list_artifacts(tracker.run_id(run))} == {
        "config.yaml",
        "table.txt",
        "figures",
    }
    assert [item.path for item in client.list_artifacts(tracker.run_id(run), "figures")] == [
        "figures/a.svg"
    ]
    folder = Path(store.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert list(folder.glob(f"{tracker.run_id(run)}/artifacts/table.txt"))


def test_a_deleted_experiment_is_restored(store: str, client: MlflowClient) -> None:
    first = Tracker(store, "deleted-task")
    client.delete_experiment(first.experiment_id)
    second = Tracker(store, "deleted-task")
    assert second.experiment_id == first.experiment_id
    assert new_sweep(second, "works")


def test_the_ui_command_opens_this_store_on_the_loopback(store: str, tracker: Tracker) -> None:
    words = shlex.split(tracker.ui_command())
    assert words[words.index("--backend-store-uri") + 1] == store
    assert words[words.index("--host") + 1] == "127.0.0.1"


def test_a_checkpoint_is_registered_once_with_its_run_and_what_it_was_made_of(
    tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    run = tracker.stage_run(new_sweep(tracker, "registered"), "orm", "key-orm")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    tracker.log(run, metrics={"final_loss": 0.5}, artifacts=[tmp_path / "checkpoint"])
    for _ in range(2):
        tracker.register("helpdesk.orm", run, "checkpoint", {"stage_key": "key-orm"})
    (version,) = client.search_model_versions("name = 'helpdesk.orm'")
    assert version.run_id == tracker.run_id(run) and version.tags == {"stage_key": "key-orm"}
    folder = Path(str(version.source).removeprefix("file://"))
    assert (folder / "config.json").read_text() == "{}"


def test_what_a_killed_job_left_open_is_closed_and_other_jobs_stay(
    tracker: Tracker, client: MlflowClient
) -> None:
    killed = tracker.start_sweep("killed", "killed", {}, "", output="/out")
    stage = tracker.stage_run(killed, "orm", "key")
    other = tracker.start_sweep("other", "other", {}, "", output="/elsewhere")
    tracker.start_sweep("next", "next", {}, "", output="/out")
    ended = {run: client.get_run(tracker.run_id(run)) for run in (killed, stage, other)}
    assert {run.name: found.info.status for run, found in ended.items()} == {
        "killed": "KILLED", "orm": "KILLED", "other": "RUNNING",
    }  # fmt: skip
    assert ended[stage].data.tags["end"] == "the job was killed"


def test_the_same_sweep_in_two_folders_has_two_runs(tracker: Tracker) -> None:
    first, second, again = (
        tracker.run_id(tracker.start_sweep("equal", "equal", {}, "", output=folder))
        for folder in ("/one's", "/two", "/one's")
    )
    assert first == again != second


CREATE = """
import sys
from orchestrator.tracking.mlflow_tracker import Tracker
tracker = Tracker(sys.argv[1], "helpdesk")
run = tracker.start_sweep(sys.argv[2], sys.argv[2], {}, "")
tracker.finish(run, "FINISHED")
"""


def test_two_jobs_create_one_store_at_the_same_time(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, uri, key], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for key in ("a", "b")
    ]
    for job in jobs:
        _, errors = job.communicate(timeout=600)
        assert job.returncode == 0, errors
    client = MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'helpdesk'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["a", "b"]
