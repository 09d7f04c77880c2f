"""Adds the checks that need torch to DecodeArguments, the options of jobs/decode.py."""

from dataclasses import dataclass

from actors.policy import PolicySpec
from actors.reward import RewardSpec
from actors.search import ModelEngines, Search
from jobs.batch.decode_arguments import LINES, DecodeArguments
from jobs.batch.file_job import check_rows_file
from jobs.batch.options import Identity, option
from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.choices import Engine
from orchestrator.config.engine_choice import engine_of
from orchestrator.config.load import ConfigError
from orchestrator.data.rows import SUFFIXES, VALID, file_stem
from orchestrator.decoding.checks import (
    check_counts,
    check_dtype,
    check_max_new_tokens,
    check_models,
    check_sampling,
    check_seed,
)
from orchestrator.decoding.methods import method_fields, method_of, needs_scorer, parsed
from orchestrator.decoding.prompts import PromptReader
from orchestrator.engines.vllm.process import check_served
from orchestrator.evaluation.flops import Sizes
from orchestrator.scorers.kind import ScorerKind, kinds_in_order
from orchestrator.scorers.parameters import scorer_parameters
from orchestrator.scorers.scored_token import scored_token
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.method import METHODS, AnySearchMethod
from orchestrator.stages.identity import fingerprint

OF_REWARD = (
    "reward", "kind", "option", "base", "beta", "aggregation", "step_delimiter", "step_tag",
    "score_label", "position", "reward_cache_mib", "preset", "format", "score_at", "score_token",
    "finished",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(DecodeArguments):
    """Adds the checks that need torch to DecodeArguments."""

    @property
    def spec(self) -> ScorerSpec | None:
        """The scorer; None if the method needs none."""
        if self.reward is None or not needs_scorer(self.method):
            return None
        return self.scorer_spec(engine=self._engine, finished_position=self.finished)

    @property
    def _engine(self) -> Engine:
        return "vllm" if self.engine == "vllm" else "transformers"

    @property
    def engines(self) -> ModelEngines:
        """The engines that each actor loads."""
        threads = self.threads_per_actor
        policy = PolicySpec(
            self.policy, self.temperature, self.top_p, self.device, threads, dtype=self.dtype,
            engine=self._engine, cache_mib=self.policy_cache_mib,
        )  # fmt: skip
        if self.spec is None:
            return ModelEngines(policy, None)
        return ModelEngines(
            policy,
            RewardSpec(
                self.spec, self.position, self.policy, self.device, threads, self.dtype,
                self.reward_cache_mib,
            ),
        )  # fmt: skip

    @property
    def search(self) -> Search:
        """The search that each actor runs."""
        return Search(self._search_method(), self.max_concurrent)

    def sizes(self) -> Sizes:
        """Return the parameters of both models, from the headers of their checkpoints."""
        policy = matrix_parameters(self.policy, language_head=True)
        return Sizes(policy, 0.0 if self.spec is None else scorer_parameters(self.spec))

    def identity(self) -> Identity:
        """Return the values that determine the responses, keyed by option.

        Files and models are fingerprints.

        The number of actors, threads and concurrent prompts changes rounding and nothing else.
        """
        identity = self.deciding_values()
        identity[option("engine")] = self._engine
        settings = self._search_method().settings
        identity |= {f"method.{name}": value for name, value in settings.items()}
        for name in self.PATHS:
            value = getattr(self, name)
            identity[option(name)] = None if value is None else fingerprint(value)
        if self.spec is not None:
            identity["scored_token"] = scored_token(self.spec, self.position)
        return identity

    def prompt_reader(self) -> PromptReader:
        """Check all options and return the reader of prompts; loads no weights.

        Raises:
            ConfigError: an option is not valid; the message names it, its value and valid values.
        """
        self._check_beta_of_method()
        self._search_method()
        self._check_numbers()
        check_rows_file("--prompts", self.prompts, (*SUFFIXES, LINES), f"{VALID}, or .txt")
        self.check_has_reward()
        self.check_checkpoints("reward", "base")  # also if the method does not use them
        self.check_effects(self._no_effect_with_method())
        self.check_values()
        self._check_models()
        stem = file_stem(self.prompts).removesuffix(LINES)
        return PromptReader(
            self.policy, self.spec, self.seed, self.max_new_tokens, stem, self.fold_system
        )

    def _search_method(self) -> AnySearchMethod:
        return method_of(self.method, parsed(self.fields))

    def _check_numbers(self) -> None:
        check_sampling(option, self.temperature, self.top_p)
        check_counts(option, max_new_tokens=self.max_new_tokens)
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ConfigError(
                f"--max-actors = {self.max_actors}: less than --actors; valid: {self.actors} or"
                " more"
            )
        check_seed(option, self.seed)

    def _check_beta_of_method(self) -> None:
        """Refuse ``--beta`` for a method with a field beta, such as CARDS, unless --base is set."""
        if self.beta is None or self.base is not None or self.method not in METHODS:
            return
        if "beta" in method_fields(self.method):
            raise ConfigError(
                f"--beta = {self.beta}: it is the factor of a log ratio, which needs --base;"
                f" valid: --beta together with --base, or beta={self.beta:g} for the field of"
                f" {self.method}"
            )

    def _check_models(self) -> None:
        kind = check_models(option, self.policy, self.spec, self._engine)
        check_max_new_tokens(option, self.max_new_tokens, self.policy)
        self._check_engine(kind)
        if kind is not None:
            self.check_effects(
                {**_no_effect_with(kind), **self.no_effect_delimiter(kind, "--aggregation")}
            )
            self.check_step_tag(kind)
        check_dtype(option, self.dtype, kind)

    def _no_effect_with_method(self) -> dict[str, str]:
        """Return the options that have no effect with the method, each with the reason."""
        reasons = {}
        method = METHODS[self.method]
        if not method.needs_scorer:
            reasons = dict.fromkeys(OF_REWARD, f"--method {self.method} needs no scores")
        if not method.samples_policy:
            why = f"--method {self.method} uses the policy's logits without sampling"
            reasons |= {"temperature": why, "top_p": why}
        if not method.is_random:
            reasons["seed"] = f"--method {self.method} draws no random numbers"
        return reasons

    def _check_engine(self, kind: ScorerKind | None) -> None:
        try:
            engine = engine_of(self.engine, self.method, kind)
        except ValueError as error:
            raise ConfigError(f"--engine = {self.engine!r}: {error}; valid: transformers") from None
        if engine != "vllm":
            return
        if self.dtype != "float32":
            raise ConfigError(f"--dtype = {self.dtype!r}: not with --engine vllm; valid: float32")
        try:
            check_served(self.policy)
            if self.spec is not None and kind is not None:
                kind.check_vllm(self.spec)
        except (ValueError, ModuleNotFoundError) as error:
            raise ConfigError(f"--engine = 'vllm': {error}") from error


def _no_effect_with(kind: ScorerKind) -> dict[str, str]:
    """Return the options that have no effect with a kind of scorer, each with the reason."""
    without_effect = {}
    if not kind.keeps_cache:
        kinds = " or ".join(n for n, other in kinds_in_order().items() if other.keeps_cache)
        without_effect["reward_cache_mib"] = f"only a reward model of kind {kinds} has a KV cache"
    if not kind.position_matters:
        without_effect["position"] = (
            f"a scorer of kind {kind.name} scores the same in both positions"
        )
    return without_effect
