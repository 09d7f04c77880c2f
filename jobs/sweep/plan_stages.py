"""The stages of a plan as they are listed: what each reads, and which models stand for stages."""

from pathlib import Path
from typing import Any

from jobs.sweep.sweep import Model, Step, Sweep
from orchestrator.config.sections import to_plain
from orchestrator.stages.identity import fingerprint
from orchestrator.stages.store import Stage


class StageList:
    """Lists the steps of a sweep, in the order in which they run.

    Args:
        sweep: what the steps share; its stages and models are filled in.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.config = sweep, sweep.config
        self.steps: list[Step] = []

    def add(
        self,
        name: str,
        module: Any,
        run: Any,
        config: dict[str, Any],
        inputs: Any,
        *,
        unit: str,
        files: dict[str, str] | None = None,
        checkpoint: bool = False,
        options: dict[str, Any] | None = None,
        components: tuple[str, ...] = (),
    ) -> None:
        """Add a stage; of ``inputs`` those count that are stages, or models that the user gave."""
        stages = self.sweep.stages
        read = tuple(stages[i] for i in dict.fromkeys(inputs) if i in stages)
        # A model that the user gave stands for the stage that would make it.
        given = {k: v for i in inputs if i in self.sweep.models for k, v in self.given(i).items()}
        config = {**config, "chat": to_plain(self.config.chat)}
        stage = Stage(
            name, module.__name__, config, read, {**(files or {}), **given}, checkpoint, components
        )
        stages[name] = stage
        self.steps.append(Step(stage, run, unit, options or {}))

    def add_model(self, name: str, stage: str, given: str | None) -> None:
        """Name a model: that of a stage, or a checkpoint that the user gave."""
        made_by = None if given is not None else self.sweep.stages[stage]
        if given is not None and (folder := Path(given).expanduser()).is_dir():
            given = str(folder.resolve())  # actors work in other folders
        self.sweep.models[name] = Model(made_by, given)

    def stage_of(self, model: str) -> str:
        """The stage that makes a model; of a given checkpoint, the model's own name."""
        made_by = self.sweep.models[model].stage
        return model if made_by is None else made_by.name

    def given(self, model: str | None) -> dict[str, str]:
        """Fingerprints of a model's checkpoints that the user gave, by name."""
        found, known = {}, self.sweep.models.get(model or "")
        if model and known and known.given:
            reading = repr(self.config.models.reading(model))
            found = {model: fingerprint(known.given), f"{model}.reading": reading}
        if (variant := self.config.variants.get(model or "")) and variant.base:
            found[f"{model}.base"] = fingerprint(variant.base)
        return found

    def readers(self) -> dict[str, str]:
        """Given models, whose contexts decide which pairs of a data set and prompts are kept."""
        given = {name: variant.checkpoint for name, variant in self.config.variants.items()}
        given |= {"orm": self.config.models.orm, "reference": self.config.models.reference}
        return {name: fingerprint(path) for name, path in given.items() if path}
