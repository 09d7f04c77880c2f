"""A tuning before it starts: what trials share, what is refused, what they need, the best YAML."""

from pathlib import Path
from typing import Any

import pytest

from jobs.sweep.cluster_budget import check_budget, check_trials, needed_cpus
from jobs.tuning.study import Study, study_of
from jobs.tuning.trial import TrialJob
from jobs.tuning.trial_configs import measures_of
from orchestrator.config.load import ROOT, ConfigError, load_config, to_yaml
from orchestrator.tuning.options import TuningOptions

SMOKE = ROOT / "configs" / "smoke.yaml"
RATE = "training.prm.learning_rate=loguniform(1e-4,1e-2)"
BEFORE = ["data", "policy", "pairs", "orm", "reference", "partial_pairs"]


def request(
    *space: str, model: str = "prm_sst", trials: int = 3, **changes: object
) -> TuningOptions:
    options = {"metric": "held_out_accuracy", "mode": "max", "concurrent": 1, "scheduler": "asha"}
    return TuningOptions(model, space, trials, **{**options, **changes})  # type: ignore[arg-type]


def study(folder: Path, *space: str, overrides: tuple[str, ...] = (), **changes: object) -> Study:
    asked = request(*space, **changes)  # type: ignore[arg-type]
    return study_of(asked, SMOKE, [f"output_dir={folder}", *overrides])[0]


@pytest.mark.parametrize(
    ("field", "first_own"),
    [
        ("training.prm.learning_rate=uniform(0.1,0.2)", len(BEFORE)),
        ("variants.prm_sst.weight=choice(none,mask,entropy)", len(BEFORE)),
        ("weight.max=choice(1.5,10,null)", BEFORE.index("partial_pairs")),
        ("partial.sst_k=randint(2,9)", BEFORE.index("partial_pairs")),
        ("training.policy.batch_size=quniform(16,64,16)", BEFORE.index("policy")),
        ("seed=choice(1,2,3)", 0),
    ],
)
def test_stages_with_the_same_key_in_all_trials_are_shared(
    tmp_path: Path, field: str, first_own: int
) -> None:
    found = study(tmp_path, field)
    assert len(found.trials) == 3
    assert found.shared == BEFORE[:first_own]
    for trial in found.trials:
        own = [step.stage.name for step in found.steps_of(trial)]
        assert own == [*BEFORE[first_own:], "variants/prm_sst"]
    assert len({trial.stage.key for trial in found.trials}) == 3
    assert found.starts_actors == bool({"pairs", "partial_pairs"} & set(BEFORE[first_own:]))


def test_an_input_of_two_that_only_one_depends_on_is_shared(tmp_path: Path) -> None:
    found = study(tmp_path, "training.orm.learning_rate=choice(0.001,0.002)", trials=2)
    assert found.shared == ["data", "policy", "pairs", "reference"]
    assert [step.stage.name for step in found.steps_of(found.trials[0])] == [
        "orm", "partial_pairs", "variants/prm_sst",
    ]  # fmt: skip


def test_trials_are_the_seeds_and_a_study_is_its_trials(tmp_path: Path) -> None:
    first, again = study(tmp_path, RATE), study(tmp_path, RATE)
    assert [t.values for t in first.trials] == [t.values for t in again.trials]
    assert first.key == again.key
    assert study(tmp_path, RATE, overrides=("seed=1",)).trials[0].values != first.trials[0].values
    more = study(tmp_path, RATE, trials=4)
    assert [t.stage.key for t in more.trials[:3]] == [t.stage.key for t in first.trials]
    assert len({first.key, more.key, study(tmp_path, RATE, scheduler="fifo").key}) == 3
    assert study(tmp_path, RATE, concurrent=2).key == first.key
    assert len(study(tmp_path, "seed=choice(1,2)", trials=9).trials) == 2, "no more are different"


@pytest.mark.parametrize(
    ("space", "changes", "told"),
    [
        ("training.prm.lerning_rate=uniform(0.1,1)", {}, "did you mean 'learning_rate'?"),
        ("training.prm.learning_rate=uniform(-2,-1)", {}, "greater than 0"),
        ("training.prm.batch_size=uniform(0.5,0.9)", {}, "training.prm.batch_size = 0."),
        ("search.cbs.beams=randint(1,9)", {}, "does not change the training of prm_sst"),
        ("training.implicit.learning_rate=choice(0.1,0.2)", {}, "does not change the training"),
        (RATE, {"model": "orm"}, "does not change the training of orm"),
        (RATE, {"model": "prm"}, "prm: no such model; valid: policy, orm"),
        (
            RATE,
            {"metric": "accuracy"},
            "--metric accuracy: a training of prm_sst has no such metric; valid:",
        ),
        (RATE, {"trials": 0}, "--trials = 0: valid: 1 to 10,000"),
        (RATE, {"concurrent": 0}, "--concurrent = 0: valid: 1 to 10,000"),
        ("models.orm=choice(/not/there)", {}, "no such folder"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(
    tmp_path: Path, space: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as error:
        study(tmp_path / "out", space, **changes)
    assert told in str(error.value)
    assert not (tmp_path / "out").exists()


def test_metrics_are_those_that_a_training_measures() -> None:
    config = load_config(SMOKE, ["variants.dpo.objective=dpo"])
    held_out = ["held_out_accuracy", "held_out_loss"]
    grid = [f"held_out_AR_t{t}" for t in (5, 15, 25)]
    assert measures_of(config, "policy") == ["final_loss"]
    assert set(measures_of(config, "dpo")) == {*held_out, "final_loss"}
    for name in ("orm", "reference", "prm_sst"):
        assert set(measures_of(config, name)) == {*held_out, *grid, "final_loss"}
    nothing = load_config(SMOKE, ["training.evaluation_pairs=0", "training.evaluation_steps=null"])
    assert measures_of(nothing, "prm_sst") == ["final_loss"]


def test_each_trials_config_is_read_back_from_its_yaml(tmp_path: Path) -> None:
    space = (RATE, "weight.max=choice(1.5,null)", "variants.prm_tlt=choice(null)")
    found = study(tmp_path, *space, overrides=("variants.extra.weight=none",))
    for trial in found.trials:
        file = tmp_path / f"{trial.number}.yaml"
        file.write_text(to_yaml(trial.plan.config))
        read = load_config(file)
        assert read == trial.plan.config
        assert read.training.prm.learning_rate == trial.values["training.prm.learning_rate"]
        assert read.weight.max == trial.values["weight.max"]
        assert "prm_tlt" not in read.variants and "extra" in read.variants


def test_trials_that_would_wait_for_a_place_are_refused() -> None:
    """Smoke: 2 workers of 0.4, 2 data tasks of 0.2, a trial of 0.1; pools are 5 of 0.1."""
    config = load_config(SMOKE)
    check_trials([config], 1, starts_actors=False, cpus=1.3, gpus=None)
    check_trials([config], 1, starts_actors=True, cpus=1.8, gpus=0)
    check_trials([config], 3, starts_actors=False, cpus=4, gpus=0)
    with pytest.raises(
        ConfigError, match=r"--concurrent 2: .* need 1.3 CPUs together, .* has 2; .* most 1, "
    ):
        check_trials([config], 2, starts_actors=False, cpus=2, gpus=None)
    with pytest.raises(
        ConfigError, match=r"need 1.8 CPUs together, .* has 1.7; valid: smaller \*_cpus f"
    ):
        check_trials([config], 1, starts_actors=True, cpus=1.7, gpus=None)
    larger = load_config(SMOKE, ["training.workers=3"])
    with pytest.raises(ConfigError, match=r"need 1.7 CPUs together"):
        check_trials([config, larger], 2, starts_actors=False, cpus=3, gpus=None)
    on_cards = load_config(SMOKE, ["cluster.train_worker_gpus=0.5"])
    check_trials([on_cards], 2, starts_actors=False, cpus=8, gpus=None)
    with pytest.raises(
        ConfigError, match=r"--concurrent 2: .* need 1 GPUs together, and the cluster has 1"
    ):
        check_trials([on_cards], 2, starts_actors=False, cpus=8, gpus=1)


def test_a_sweep_that_needs_more_cpus_names_them_and_what_helps() -> None:
    """Smoke: 2 workers of 0.4, 2 data tasks of 0.2, 7 actors of 0.1 CPUs."""
    config = load_config(SMOKE)
    check_budget(config, needed_cpus(config))
    needs = "training.workers = 2: training workers, actors and data tasks need 1.9 CPUs together"
    for cpus, valid in (
        (1.6, "at most 1 workers (cluster.train_worker_cpus = 0.4 each), "),
        (1, ""),
    ):
        with pytest.raises(ConfigError) as error:
            check_budget(config, cpus)
        assert str(error.value) == (
            f"{needs}, and the cluster has {cpus}; valid: {valid}fewer actors, or smaller *_cpus"
            " fields of cluster"
        )


def test_what_an_actor_is_sent_holds_the_drivers_keys(tmp_path: Path) -> None:
    from ray import cloudpickle  # as Ray sends it

    found = study(tmp_path, RATE)
    trial = found.trials[0]
    plan = trial.plan
    job = TrialJob(
        1, plan.config, plan.store.root, ".", plan.stages, plan.models,
        tuple(found.steps_of(trial)), "held_out_accuracy",
    )  # fmt: skip
    sent = cloudpickle.loads(cloudpickle.dumps(job))
    assert sent == job and sent.stage.key == trial.stage.key
