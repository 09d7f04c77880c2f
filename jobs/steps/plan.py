"""The sweep as a list of steps: which stages there are, what decides each, what each reads.

Nothing is started here; keys come from config, sources and input files alone.
"""

from collections.abc import Collection
from copy import copy
from pathlib import Path
from typing import Any

from jobs.steps import (
    agreement,
    data,
    evaluation,
    implicit_pairs,
    pairs,
    partial_pairs,
    policy,
    reward_models,
    search,
)
from jobs.steps.precision import Choice, choices, settled, trains
from jobs.steps.sweep import Model, Step, Sweep
from jobs.steps.training import training_identity
from jobs.steps.variants import scoring_identity, variant_identity, variant_inputs
from orchestrator.config.sections import HelpdeskData, to_plain
from orchestrator.evaluation.metric import METRICS
from orchestrator.search.method import SearchMethod
from orchestrator.stages.identity import fingerprint
from orchestrator.stages.store import Stage


class Plan:
    """Builds the steps of one config, in the order in which they run.

    Args:
        sweep: what the steps share; its stages and models are filled in.
        model: policy, orm, reference or a variant: only the stage that trains it and those that it
            reads, directly or not, are run. Their keys are the whole plan's.
    """

    def __init__(self, sweep: Sweep, model: str | None = None) -> None:
        self.sweep, self.config, self.model = sweep, sweep.config, model
        self.steps: list[Step] = []
        self.precision: Choice | None = None  # what `training.precision: auto` stands for
        if self.config.training.precision == "auto" and trains(self.config, model):
            self._settle()
        else:
            self._build()
        self._every = self.steps
        if model is not None:
            self.steps = self._needed_for(self._stage_of(model))

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
        self.steps = []
        config = self.config
        self._data()
        self._policy()
        self._add("pairs", pairs, pairs.run, self._pairs_identity(), ("data", "policy"),
                  unit="prompts")  # fmt: skip
        self._outcome("orm")
        partial = any(v.takes_partial_pairs for v in config.variants.values())
        if config.models.reference or partial or self.model == "reference":
            self._outcome("reference")
        if partial:
            self._partial_pairs()
        self._implicit_pairs()
        self._variants()
        self._search()
        self._evaluation()

    def _data(self) -> None:
        plain = to_plain(self.config.data)
        paths = {k: v for k, v in plain.items() if k in ("pairs", "demonstrations", "test")}
        files = {k: fingerprint(v) for k, v in paths.items() if isinstance(v, str)}
        identity = {"data": plain, "seed": self.config.seed}
        self._add("data", data, data.run, identity, (), files=files, unit="rows")

    def _policy(self) -> None:
        given = self.config.models.policy
        if given is None:
            identity = training_identity(self.config, "policy")
            identity["architecture"] = to_plain(self.config.models.architecture)
            identity["vocabulary"] = self.config.models.vocabulary
            self._add("policy", policy, policy.run, identity, ("data",), checkpoint=True,
                      unit="steps")  # fmt: skip
        self._model("policy", "policy", given)

    def _outcome(self, name: str) -> None:
        config = self.config
        given = getattr(config.models, name)
        if given is None:
            self._add(name, reward_models, reward_models.run_outcome,
                      training_identity(config, name), ("pairs", "policy"), checkpoint=True,
                      unit="steps")  # fmt: skip
        self._model(name, name, given)

    def _partial_pairs(self) -> None:
        config = self.config
        truncations = partial_pairs.truncations_of(config)
        identity = {
            "partial": to_plain(config.partial),
            "weight_max": config.weight.max,
            "truncations": truncations,
            "tlt_is_matched": partial_pairs.tlt_is_matched(config),
            "position": config.scoring.position,
            "seed": config.seed,
        }
        self._add("partial_pairs", partial_pairs, partial_pairs.run, identity,
                  ("pairs", "orm", "reference"), unit="pairs",
                  options={"truncations": truncations})  # fmt: skip

    def _variants(self) -> None:
        config = self.config
        # A variant that matches another one comes after it.
        ordered = sorted(config.variants, key=lambda name: config.variants[name].match is not None)
        for name in ordered:
            variant = config.variants[name]
            stage = f"variants/{name}"
            if variant.is_trained:
                self._add(stage, reward_models, reward_models.run_variant,
                          variant_identity(config, name), variant_inputs(variant),
                          unit="steps", checkpoint=True,
                          options={"variant": name})  # fmt: skip
                self._model(name, stage, None)
            else:  # a density ratio without a numerator of its own takes the policy
                self._model(name, "policy", variant.checkpoint or config.models.policy)

    def _implicit_pairs(self) -> None:
        config = self.config
        used = {v.objective for v in config.variants.values() if v.is_trained} - {"bradley_terry"}
        if not used:
            return
        unrelated = "kto" in used
        identity = {"unrelated": unrelated, "held_out": config.training.evaluation_pairs}
        self._add("implicit_pairs", implicit_pairs, implicit_pairs.run, identity,
                  ("pairs", "policy"), unit="pairs",
                  options={"unrelated": unrelated})  # fmt: skip

    def _search(self) -> None:
        config = self.config
        methods = config.search.all_methods
        n = max(method.shared_samples for method in methods.values())
        n = n or 2 * config.evaluation.pairs_per_prompt
        decoding = {"decoding": to_plain(config.decoding), "seed": config.seed,
                    "wave_size": config.search.wave_size, "engine": config.search.engine,
                    "dtype": config.search.dtype, "readers": self._readers()}  # fmt: skip
        self._add("samples", search, search.run_samples, {**decoding, "n": n}, ("data", "policy"),
                  unit="prompts", options={"n": n})  # fmt: skip
        if any(method.calibrates_entropy for method in methods.values()):
            self._add("calibration", search, search.run_calibration, decoding,
                      ("pairs", "policy"), unit="prompts")  # fmt: skip
        for name, method in methods.items():
            for scorer in config.scorers if method.needs_scorer else [None]:
                self._cell(name, method, scorer, decoding)

    def _cell(
        self,
        name: str,
        method: SearchMethod[Any],
        scorer: str | None,
        decoding: dict[str, Any],
    ) -> None:
        identity = {**decoding, "method": name, "scorer": scorer, "parameters": to_plain(method),
                    "position": self.config.scoring.position,
                    **scoring_identity(self.config, scorer)}  # fmt: skip
        inputs = ["data", "policy"]
        if scorer is not None:
            inputs.append(self._stage_of(scorer))
        inputs += ["samples"] if method.shared_samples else []
        inputs += ["pairs"] if method.calibrates_reward else []
        inputs += ["calibration"] if method.calibrates_entropy else []
        options = {"method": name, "scorer": scorer, "prompts": method.prompts}
        self._add(evaluation.cell_stage(name, scorer), search, search.run_cell, identity, inputs,
                  files=self._given(scorer), unit="prompts", options=options,
                  components=(type(method).__module__, *_metric_modules()))  # fmt: skip

    def _evaluation(self) -> None:
        config = self.config
        scored = list(dict.fromkeys(["orm", *config.scorers, *config.variants]))
        scored += ["reference"] if "reference" in self.sweep.models else []
        identity = {"evaluation": to_plain(config.evaluation), "seed": config.seed,
                    "data": to_plain(config.data)}  # fmt: skip
        for scorer in dict.fromkeys(scored):
            self._add(f"agreement/{scorer}", agreement, agreement.run,
                      {**identity, **scoring_identity(self.config, scorer)},
                      ("pairs", "samples", "policy", self._stage_of(scorer)),
                      files=self._given(scorer), unit="responses",
                      options={"scorer": scorer})  # fmt: skip
        cells = [
            {"stage": step.stage.name, **step.options}
            for step in self.steps
            if step.stage.name.startswith("cells/")
        ]
        inputs = [cell["stage"] for cell in cells]
        inputs += [f"agreement/{scorer}" for scorer in dict.fromkeys(scored)]
        self._add("evaluation", evaluation, evaluation.run,
                  {**identity, "position": config.scoring.position},
                  ("data", "pairs", "samples", self._stage_of("orm"), *inputs),
                  unit="tables",
                  options={"cells": cells, "scored": list(dict.fromkeys(scored))},
                  components=_metric_modules())  # fmt: skip

    def _add(
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
        stages = self.sweep.stages
        read = tuple(stages[i] for i in dict.fromkeys(inputs) if i in stages)
        # A model that the user gave stands for the stage that would make it.
        given = {k: v for i in inputs if i in self.sweep.models for k, v in self._given(i).items()}
        config = {**config, "chat": to_plain(self.config.chat)}
        stage = Stage(
            name, module.__name__, config, read, {**(files or {}), **given}, checkpoint, components
        )
        stages[name] = stage
        self.steps.append(Step(stage, run, unit, options or {}))

    def _model(self, name: str, stage: str, given: str | None) -> None:
        made_by = None if given is not None else self.sweep.stages[stage]
        if given is not None and (folder := Path(given).expanduser()).is_dir():
            given = str(folder.resolve())  # actors work in other folders
        self.sweep.models[name] = Model(made_by, given)

    def _stage_of(self, model: str) -> str:
        made_by = self.sweep.models[model].stage
        return model if made_by is None else made_by.name

    def _given(self, model: str | None) -> dict[str, str]:
        found, known = {}, self.sweep.models.get(model or "")
        if model and known and known.given:
            reading = repr(self.config.models.reading(model))
            found = {model: fingerprint(known.given), f"{model}.reading": reading}
        if (variant := self.config.variants.get(model or "")) and variant.base:
            found[f"{model}.base"] = fingerprint(variant.base)
        return found

    def _pairs_identity(self) -> dict[str, Any]:
        return {
            **{name: to_plain(getattr(self.config, name)) for name in ("data", "decoding")},
            "context": self.config.models.architecture.max_position_embeddings,
            "readers": {} if isinstance(self.config.data, HelpdeskData) else self._readers(),
            "seed": self.config.seed,
        }

    def _readers(self) -> dict[str, str]:
        """Given models, whose contexts decide which pairs of a data set and prompts are kept."""
        given = {name: variant.checkpoint for name, variant in self.config.variants.items()}
        given |= {"orm": self.config.models.orm, "reference": self.config.models.reference}
        return {name: fingerprint(path) for name, path in given.items() if path}


def _metric_modules() -> tuple[str, ...]:
    """The modules of all metrics: what is computed of responses, and how it is averaged."""
    return tuple(sorted({metric.__module__ for metric in METRICS.values()}))
