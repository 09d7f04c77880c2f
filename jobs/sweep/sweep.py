"""What every step of a sweep shares: config, store, console, and the warm actors, started once."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.config.load import ROOT
from orchestrator.config.scorers import outcome_spec, variant_spec
from orchestrator.config.tree import Config
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.stages.progress import Meter
from orchestrator.stages.store import Stage, Store

Figures = dict[str, Any]  # small JSON-able results of a stage: {"metrics": ..., "series": ...}
Measured = Callable[[str, float, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Step:
    """A stage with the function that makes its output.

    ``run(sweep, step, folder, meter)`` writes into ``folder`` and gives the stage's figures;
    ``unit`` is what its progress counts.
    """

    stage: Stage
    run: Callable[["Sweep", "Step", Path, Meter], Figures]
    unit: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Sweep:
    """One run of the main job, or of a part of it.

    Attributes:
        config: what is run.
        store: where stages leave their outputs.
        console: where progress is shown.
        stages: by name, filled in by the plan.
        models: each model's checkpoint, of a stage or given; by the plan too.
        measured: hears of a stage's training on the way: its name, the share of the steps that are
            done, the step and the held-out measures after it.
        trainings: folder under the store's for Ray Train's files; one group at a time has it.
    """

    config: Config
    store: Store
    console: Console
    stages: dict[str, Stage] = field(default_factory=dict)
    models: dict[str, "Model"] = field(default_factory=dict)
    measured: Measured = field(default=lambda stage, share, step, measures: None)
    trainings: str = "ray_train"
    _actors: dict[str, Any] = field(default_factory=dict)

    def file(self, stage: str, name: str) -> Path:
        """A file of a finished stage."""
        return self.store.folder(self.stages[stage]) / name

    def checkpoint(self, model: str) -> str:
        """Folder or hub name of a model: "policy", "orm", "reference" or a variant."""
        made_by = self.models[model].stage
        if made_by is None:
            return str(self.models[model].given)
        return str(self.store.folder(made_by) / "checkpoint")

    def scorer(self, model: str) -> ScorerSpec:
        """How a model of the sweep scores."""
        variant, checkpoint = self.config.variants.get(model), self.checkpoint(model)
        if variant is None:
            return outcome_spec(self.config, model, checkpoint)
        base = (variant.base or self.checkpoint("policy")) if variant.is_log_ratio else None
        return variant_spec(self.config, variant, checkpoint, base)

    def chat(self, model: str) -> Chat:
        """The tokenizer and the chat template of a model, as it reads plain conversations."""
        return load_chat(self.checkpoint(model), self.config.chat.fold_system)

    @property
    def device(self) -> str:
        """The device that actors compute on."""
        return "cuda" if self.config.cluster.actor_gpus else "cpu"

    def threads(self, processes: int) -> int:
        """Torch threads of each of some processes that share the cores."""
        return max((self.config.cluster.threads or os.cpu_count() or 1) // processes, 1)

    def policy_actors(self) -> list[Any]:
        """The policy actors, started at their first use."""
        from actors.policy import PolicyActor

        return self._started("policy", PolicyActor, self.config.cluster.policy_actors)

    def reward_actors(self) -> list[Any]:
        """The reward actors, started at their first use."""
        from actors.reward import RewardActor

        return self._started("reward", RewardActor, self.config.cluster.reward_actors)

    def search_actors(self) -> list[Any]:
        """The actors that hold both models, started at their first use."""
        from actors.search import SearchActor

        return self._started("search", SearchActor, self.config.cluster.search_actors)

    def trainer(self) -> Any:
        """The warm training group, started at its first job."""
        from jobs.sweep.trainer import TrainerGroup

        if "trainer" not in self._actors:
            training, cluster = self.config.training, self.config.cluster
            self._actors["trainer"] = TrainerGroup(
                workers=training.workers,
                cpus=cluster.train_worker_cpus,
                gpus=cluster.train_worker_gpus,
                threads=self.threads(training.workers),
                data_task_cpus=cluster.data_task_cpus,
                storage=str(self.store.local / self.trainings),
            )
        return self._actors["trainer"]

    def close(self) -> None:
        """Ends the training workers and the actors; a later step starts new ones."""
        import ray

        trainer = self._actors.pop("trainer", None)
        if trainer is not None:
            trainer.close()
        for actors in self._actors.values():
            for actor in actors:
                ray.kill(actor)
        self._actors.clear()

    def _started(self, name: str, actor_class: Any, count: int) -> list[Any]:
        if name not in self._actors:
            cluster = self.config.cluster
            # By itself, in no placement group: a trial's has room for the trial alone.
            options: dict[str, Any] = {
                "num_cpus": cluster.actor_cpus, "scheduling_strategy": "DEFAULT",
            }  # fmt: skip
            if cluster.actor_gpus:
                options["num_gpus"] = cluster.actor_gpus
            self._actors[name] = [actor_class.options(**options).remote() for _ in range(count)]
        return list(self._actors[name])


@dataclass(frozen=True)
class Model:
    """A model's checkpoint: made by a stage, or given by the user (folder or hub name)."""

    stage: Stage | None
    given: str | None = None


def project_file(path: str) -> Path:
    """A file named in the config: as it is, or relative to the project's root."""
    place = Path(path).expanduser()
    return place if place.is_absolute() or place.exists() else ROOT / place
