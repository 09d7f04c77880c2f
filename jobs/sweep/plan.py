"""The sweep as a list of steps: which stages there are, what decides each, what each reads.

Nothing is started here; keys come from config, sources and input files alone.
"""

from collections.abc import Collection
from copy import copy

from jobs.sweep.plan_models import add_models
from jobs.sweep.plan_search import add_evaluation, add_search
from jobs.sweep.plan_stages import StageList
from jobs.sweep.precision import Choice, choices, settled, trains
from jobs.sweep.sweep import Step, Sweep


class Plan:
    """Builds the steps of one config, in the order in which they run.

    Args:
        sweep: what the steps share; its stages and models are filled in.
        model: policy, orm, reference or a variant: only the stage that trains it and those that it
            reads, directly or not, are run. Their keys are the whole plan's.
    """

    def __init__(self, sweep: Sweep, model: str | None = None) -> None:
        self.sweep, self.config, self.model = sweep, sweep.config, model
        self.given = sweep.config  # before `training.precision: auto` is settled
        self.steps: list[Step] = []
        self.precision: Choice | None = None  # what `training.precision: auto` stands for
        if self.config.training.precision == "auto" and trains(self.config, model):
            self._settle()
        else:
            self._build()
        self._every = self.steps
        if model is not None:
            made_by = sweep.models[model].stage
            self.steps = self._needed_for(model if made_by is None else made_by.name)

    def after(self, name: str) -> list[Step]:
        """A stage and all of the whole plan that read it, directly or not."""
        reached = {name}
        found = []
        for step in self._every:
            if step.stage.name in reached or any(i.name in reached for i in step.stage.inputs):
                reached.add(step.stage.name)
                found.append(step)
        return found

    def part(self, names: Collection[str]) -> "Plan":
        """This plan with the steps of these stages alone."""
        found = copy(self)
        found.steps = [step for step in self.steps if step.stage.name in names]
        return found

    def _needed_for(self, name: str) -> list[Step]:
        needed = {name}
        for step in reversed(self._every):  # what reads comes after what is read
            if step.stage.name in needed:
                needed |= {read.name for read in step.stage.inputs}
        return [step for step in self._every if step.stage.name in needed]

    def _settle(self) -> None:
        """Builds the plan in the precision that `auto` stands for."""
        given, threads = self.config, self.sweep.threads(self.config.training.workers)
        for choice, certain in choices(given, self.sweep.store, threads):
            self.precision = choice
            self.sweep.config = self.config = settled(given, choice.precision)
            self._build()
            trained = [step.stage for step in self.steps if step.stage.keeps_checkpoint]
            if certain or all(map(self.sweep.store.done, trained)):
                return

    def _build(self) -> None:
        stages = StageList(self.sweep)
        add_models(stages, self.model)
        add_search(stages)
        add_evaluation(stages)
        self.steps = stages.steps
