"""The stages of a plan in order, and its models: trained by a stage, or the user's."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobs.sweep.runtime.models import Model
from jobs.sweep.runtime.workspace import Step, Workspace
from jobs.sweep.variants import kind_modules
from orchestrator.config.sections import to_plain
from orchestrator.config.tree import Config
from orchestrator.stages.identity import fingerprint
from orchestrator.stages.progress import ProgressBar
from orchestrator.stages.result import StageResult
from orchestrator.stages.store import Stage

InputsT = TypeVar("InputsT")


class StageList:
    """Lists the steps of a config, in the order in which they run.

    Attributes:
        config: config of the run.
        steps: in their order.
        stages: stages by name.
        models: models by name.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.steps: list[Step] = []
        self.stages: dict[str, Stage] = {}
        self.models: dict[str, Model] = {}

    def add(
        self,
        name: str,
        run: Callable[[InputsT, Path, ProgressBar], StageResult],
        inputs: Callable[[Workspace], InputsT],
        config: Mapping[str, object],
        reads: Iterable[str],
        *,
        unit: str,
        files: Mapping[str, str] | None = None,
        keeps_checkpoint: bool = False,
        components: tuple[str, ...] = (),
    ) -> None:
        """Add a stage.

        Args:
            name: name of the stage.
            run: the step function; the sources of its module are part of the key.
            inputs: makes the inputs of ``run`` when the step runs.
            config: JSON-able values that decide the output.
            reads: names of stages, or of the user's models, which the step reads.
            unit: what its progress counts.
            files: fingerprints of other files and checkpoints that the step reads, by name.
            keeps_checkpoint: whether `storage.checkpoints_kept` limits the old versions of its
                output.
            components: modules of registered components that the step runs.

        Raises:
            KeyError: a name in ``reads`` is neither a stage nor a model.
        """
        names = list(dict.fromkeys(reads))
        if unknown := [n for n in names if n not in self.stages and n not in self.models]:
            raise KeyError(f"{name} reads {unknown[0]}, which is neither a stage nor a model")
        provided = {
            k: v for n in names if n in self.models for k, v in self.fingerprints(n).items()
        }
        stage = Stage(
            name,
            run.__module__,
            {**config, "chat": to_plain(self.config.chat)},
            tuple(self.stages[n] for n in names if n in self.stages),
            {**(files or {}), **provided},
            keeps_checkpoint,
            components,
        )
        self.stages[name] = stage
        self.steps.append(Step(stage, partial(_run, run, inputs), unit))

    def add_model(self, name: str, stage: str, checkpoint: str | None) -> None:
        """Name a model: the one that a stage trains, or a user's checkpoint."""
        made_by = None if checkpoint is not None else self.stages[stage]
        if checkpoint is not None and (folder := Path(checkpoint).expanduser()).is_dir():
            checkpoint = str(folder.resolve())  # actors work in other folders
        self.models[name] = Model(made_by, checkpoint)

    def stage_of(self, model: str) -> str:
        """Return the stage that trains a model; for a user's checkpoint, the model's name."""
        made_by = self.models[model].stage
        return model if made_by is None else made_by.name

    def fingerprints(self, model: str | None) -> dict[str, str]:
        """Return fingerprints of the user's checkpoints that a model consists of, by name."""
        if model is None:
            return {}
        prints: dict[str, str] = {}
        listed = self.models.get(model)
        if listed and listed.checkpoint:
            reading = repr(self.config.models.reading(model))
            prints = {model: fingerprint(listed.checkpoint), f"{model}.reading": reading}
        if (variant := self.config.variants.get(model)) and variant.base:
            prints[f"{model}.base"] = fingerprint(variant.base)
        return prints

    def user_reward_model_fingerprints(self) -> dict[str, str]:
        """Return fingerprints of the user's reward models.

        Their contexts decide which pairs of a data set and which prompts are kept.
        """
        return {name: fingerprint(path) for name, path in self._user_reward_models().items()}

    def kind_modules(self, *scorers: str | None) -> tuple[str, ...]:
        """Return the modules of the kinds of some scorers, and of the user's reward models.

        They are components of the stages that score by these scorers, or read texts as they do.
        """
        names = {*filter(None, scorers), *self._user_reward_models()}
        return tuple(sorted(set().union(*(kind_modules(self.config, name) for name in names))))

    def _user_reward_models(self) -> dict[str, str]:
        paths = {name: variant.checkpoint for name, variant in self.config.variants.items()}
        paths |= {"orm": self.config.models.orm, "reference": self.config.models.reference}
        return {name: path for name, path in paths.items() if path}


def _run(
    run: Callable[[InputsT, Path, ProgressBar], StageResult],
    inputs: Callable[[Workspace], InputsT],
    workspace: Workspace,
    folder: Path,
    progress: ProgressBar,
) -> StageResult:
    """Make a step's inputs and do it."""
    return run(inputs(workspace), folder, progress)
