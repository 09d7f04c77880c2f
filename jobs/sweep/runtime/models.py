"""The models of a plan: where each checkpoint is, and how it scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.sweep.runtime.stage_files import StageFiles
from orchestrator.config.scorers import outcome_spec, variant_spec
from orchestrator.config.tree import Config
from orchestrator.conversations.chat import Chat, load_chat
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.stages.store import Stage


@dataclass(frozen=True)
class Model:
    """The checkpoint of a model.

    Attributes:
        stage: the stage that trains it; None for a checkpoint of the user.
        checkpoint: folder or hub name of the user's checkpoint; None for a model that is trained.
    """

    stage: Stage | None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Models:
    """Resolves the models of a plan: "policy", "orm", "reference" and the variants.

    Attributes:
        config: config of the run.
        files: files of finished stages.
        models: models by name.
    """

    config: Config
    files: StageFiles
    models: Mapping[str, Model]

    def checkpoint(self, name: str) -> str:
        """Return the folder or hub name of a model."""
        model = self.models[name]
        if model.stage is None:
            return str(model.checkpoint)
        return str(self.files.store.folder(model.stage) / "checkpoint")

    def scorer(self, name: str) -> ScorerSpec:
        """Return how a model scores."""
        variant, checkpoint = self.config.variants.get(name), self.checkpoint(name)
        if variant is None:
            return outcome_spec(self.config, name, checkpoint)
        base = (variant.base or self.checkpoint("policy")) if variant.has_base else None
        return variant_spec(self.config, variant, checkpoint, base)

    def chat(self, name: str) -> Chat:
        """Return the tokenizer and chat template of a model that reads plain conversations."""
        return load_chat(self.checkpoint(name), self.config.chat.fold_system)

    def scorers_of_user(self) -> dict[str, ScorerSpec]:
        """Return the reward models that the user gave as checkpoints, by name."""
        return {
            name: self.scorer(name)
            for name, model in self.models.items()
            if name != "policy" and model.checkpoint
        }
