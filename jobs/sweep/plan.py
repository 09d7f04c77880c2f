"""The sweep as a list of steps: its stages, what decides their outputs, and what they read.

Nothing is started here; keys depend only on config, sources and input files.
"""

from collections.abc import Collection
from copy import copy

from rich.console import Console

from jobs.sweep.plan_models import add_models
from jobs.sweep.plan_search import add_evaluation, add_search
from jobs.sweep.plan_stages import StageList
from jobs.sweep.precision import Choice, choices, trains, with_precision
from jobs.sweep.runtime.models import Model
from jobs.sweep.runtime.resources import threads_per_process
from jobs.sweep.runtime.workspace import Step, Workspace
from orchestrator.config.tree import Config
from orchestrator.stages.store import Stage, Store


class Plan:
    """Builds the steps of one config, in the order in which they run.

    Args:
        config: config of the run.
        store: the store of the stages' outputs.
        model: policy, orm, reference or a variant: only the stage that trains it and those that it
            reads, directly or not, are run. Their keys are those of the full plan.

    Attributes:
        config: config of the run; `training.precision: auto` is replaced by a precision if the
            plan trains a model.
        requested: the config as it was passed.
        store: the store of the stages' outputs.
        model: the only model to train; None: all models.
        steps: the steps to run, in order.
        stages: all stages by name.
        models: all models by name.
        precision: what `training.precision: auto` stands for; None if `training.precision` is not
            auto or nothing is trained.
    """

    def __init__(self, config: Config, store: Store, model: str | None = None) -> None:
        self.config = self.requested = config
        self.store, self.model = store, model
        self.steps: list[Step] = []
        self.stages: dict[str, Stage] = {}
        self.models: dict[str, Model] = {}
        self.precision: Choice | None = None
        if config.training.precision == "auto" and trains(config, model):
            self._choose_precision()
        else:
            self._build()
        self._every = self.steps
        if model is not None:
            made_by = self.models[model].stage
            self.steps = self._needed_for(model if made_by is None else made_by.name)

    def workspace(self, console: Console) -> Workspace:
        """Return what the steps' inputs are made from; it starts processes at their first use."""
        return Workspace.of(self.config, self.store, self.stages, self.models, console)

    def after(self, name: str) -> list[Step]:
        """Return a stage and all stages of the full plan that read it, directly or not."""
        reached = {name}
        steps = []
        for step in self._every:
            if step.stage.name in reached or any(i.name in reached for i in step.stage.inputs):
                reached.add(step.stage.name)
                steps.append(step)
        return steps

    def part(self, names: Collection[str]) -> "Plan":
        """Return the plan with the steps of some stages only."""
        plan = copy(self)
        plan.steps = [step for step in self.steps if step.stage.name in names]
        return plan

    def _needed_for(self, name: str) -> list[Step]:
        needed = {name}
        for step in reversed(self._every):  # a stage comes after those that it reads
            if step.stage.name in needed:
                needed |= {read.name for read in step.stage.inputs}
        return [step for step in self._every if step.stage.name in needed]

    def _choose_precision(self) -> None:
        """Build the plan with the precision that `auto` stands for."""
        threads = threads_per_process(self.config.cluster, self.config.training.workers)
        for choice, certain in choices(self.requested, self.store, threads):
            self.precision = choice
            self.config = with_precision(self.requested, choice.precision)
            self._build()
            trained = [step.stage for step in self.steps if step.stage.keeps_checkpoint]
            if certain or all(map(self.store.done, trained)):
                return

    def _build(self) -> None:
        stages = StageList(self.config)
        add_models(stages, self.model)
        add_search(stages)
        add_evaluation(stages)
        self.steps, self.stages, self.models = stages.steps, stages.stages, stages.models
