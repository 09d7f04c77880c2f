"""The folders and metrics of finished stages, by the stage's name."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.stages.store import Stage, Store


@dataclass(frozen=True)
class StageFiles:
    """The stages of a plan in their store.

    Attributes:
        store: the store of the stages' outputs.
        stages: all stages of the plan, by name.
    """

    store: Store
    stages: dict[str, Stage]

    def folder(self, stage: str) -> Path:
        """Return the folder of a finished stage."""
        return self.store.folder(self.stages[stage])

    def file(self, stage: str, name: str) -> Path:
        """Return the path of a file of a finished stage."""
        return self.folder(stage) / name

    def metrics(self, stage: str) -> dict[str, float]:
        """Return the metrics of a finished stage."""
        return self.store.marker(self.stages[stage])["figures"]["metrics"]
