"""The options of jobs/decode.py, checked before anything starts, and which decide the responses."""

from dataclasses import dataclass, replace
from typing import Any

from actors.policy import PolicyPlace
from actors.reward import RewardPlace
from actors.search import ModelEngines, Search
from jobs.batch.file_job import check_rows_file
from jobs.batch.score_options import absolute, option, refuse_unread
from jobs.batch.scorer_options import DECIDING as OF_SCORER
from jobs.batch.scorer_options import ScorerOptions
from orchestrator.checkpoints.parameters import matrix_parameters
from orchestrator.choices import Dtype, Engine, EngineChoice, Finished, ScorerKind
from orchestrator.config.checks import check_checkpoint
from orchestrator.config.load import ConfigError
from orchestrator.data.rows import SUFFIXES, VALID, file_stem
from orchestrator.decoding.checks import (
    check_counts,
    check_dtype,
    check_models,
    check_room,
    check_sampling,
    check_seed,
)
from orchestrator.decoding.engines import engine_of
from orchestrator.decoding.methods import (
    asks_scorer,
    method_fields,
    method_of,
    parsed,
    unscored_methods,
)
from orchestrator.decoding.prompts import PromptReader
from orchestrator.engines.vllm.process import check_served
from orchestrator.evaluation.flops import Sizes
from orchestrator.scorers.parameters import scorer_parameters
from orchestrator.scorers.scored_token import scored_token
from orchestrator.scorers.scorer import ScorerSpec
from orchestrator.scorers.vllm_scorer import check_model
from orchestrator.search.method import METHODS, SearchMethod
from orchestrator.stages.identity import fingerprint

LINES = ".txt"  # one prompt a line
OF_REWARD = ("reward", "kind", "base", "beta", "aggregation", "step_delimiter", "step_tag",
             "score_label", "position", "reward_cache_mib", "preset", "format", "score_at",
             "score_token", "finished")  # fmt: skip
NO_CACHE = {"reward_cache_mib": "only a reward model of kind sequence keeps keys and values"}
BOTH_POSITIONS = "it is read the same in both positions"
# What nothing reads of a kind of reward model, each with the reason; the other kinds: NO_CACHE.
UNREAD_BY_KIND: dict[ScorerKind, dict[str, str]] = {
    "sequence": {},
    "step_tag": {**NO_CACHE, "position": f"a step tag: {BOTH_POSITIONS}"},
    "log_ratio": {**NO_CACHE, "position": f"a log ratio: {BOTH_POSITIONS}"},
}
DECIDING = ("method", "max_new_tokens", "temperature", "top_p", "seed", "dtype", "finished",
            *OF_SCORER)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(ScorerOptions):
    """The options of jobs/decode.py; its `--help` says what they mean."""

    policy: str
    method: str
    prompts: str
    out: str
    fields: list[str]
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    actors: int
    threads: int
    max_actors: int | None
    policy_cache_mib: int | None
    reward_cache_mib: int | None
    max_concurrent: int
    part_rows: int
    dtype: Dtype
    engine: EngineChoice
    device: str
    force: bool
    finished: Finished = "template"

    @property
    def spec(self) -> ScorerSpec | None:
        """The scorer, where the method asks one."""
        if self.reward is None or not asks_scorer(self.method):
            return None
        return self.scorer_spec(engine=self._engine, finished=self.finished)

    @property
    def _engine(self) -> Engine:
        return "vllm" if self.engine == "vllm" else "transformers"

    @property
    def engines(self) -> ModelEngines:
        """What each actor loads."""
        policy = PolicyPlace(
            self.policy, self.temperature, self.top_p, self.device, self.threads, dtype=self.dtype,
            engine=self._engine, cache_mib=self.policy_cache_mib,
        )  # fmt: skip
        if self.spec is None:
            return ModelEngines(policy, None)
        return ModelEngines(
            policy,
            RewardPlace(
                self.spec, self.position, self.policy, self.device, self.threads, self.dtype,
                self.reward_cache_mib,
            ),
        )  # fmt: skip

    @property
    def search(self) -> Search:
        """What each actor does."""
        return Search(self._search_method(), self.max_concurrent)

    def sizes(self) -> Sizes:
        """N of both models, from the headers of their checkpoints."""
        policy = matrix_parameters(self.policy, language_head=True)
        return Sizes(policy, 0.0 if self.spec is None else scorer_parameters(self.spec))

    def resolved(self) -> "DecodeOptions":
        """With absolute paths: actors work in other folders."""
        return replace(
            self,
            policy=absolute(self.policy),
            prompts=absolute(self.prompts),
            reward=None if self.reward is None else absolute(self.reward),
            base=None if self.base is None else absolute(self.base),
        )

    def identity(self) -> dict[str, Any]:
        """What decides the responses, by option: contents of files, values of all others.

        How many actors, threads and prompts at once it takes changes rounding and nothing else.
        """
        found = {option(name): getattr(self, name) for name in DECIDING}
        found[option("engine")] = self._engine
        settings = self._search_method().settings
        found |= {f"method.{name}": value for name, value in settings.items()}
        for name in ("policy", "prompts", "reward", "base"):
            value = getattr(self, name)
            found[option(name)] = None if value is None else fingerprint(value)
        if self.spec is not None:
            found["scored_token"] = scored_token(self.spec, self.position)
        return found

    def reader(self) -> PromptReader:
        """Checks all of them, and says how prompts are read; loads no weights.

        Raises:
            ConfigError: an option cannot be; the message names it, its value and what is valid.
        """
        self._check_beta_of_method()
        self._search_method()
        self._check_numbers()
        check_rows_file("--prompts", self.prompts, (*SUFFIXES, LINES), f"{VALID}, or .txt")
        if self.reward is None and asks_scorer(self.method):
            raise ConfigError(
                f"--reward: missing; --method {self.method} asks for scores; valid: a reward model,"
                f" or --method {' or '.join(unscored_methods())}"
            )
        for name in ("reward", "base"):  # a method that asks for no score leaves them unused
            if (value := getattr(self, name)) is not None:
                check_checkpoint(option(name), value)
        refuse_unread(self, self._unread())
        self.check_values()
        self._check_models()
        stem = file_stem(self.prompts).removesuffix(LINES)
        return PromptReader(
            self.policy, self.spec, self.seed, self.max_new_tokens, stem, self.fold_system
        )

    def _search_method(self) -> SearchMethod[Any]:
        return method_of(self.method, parsed(self.fields))

    def _check_numbers(self) -> None:
        check_sampling(option, self.temperature, self.top_p)
        check_counts(option, max_new_tokens=self.max_new_tokens)
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ConfigError(
                f"--max-actors = {self.max_actors}: valid: --actors = {self.actors} or more"
            )
        check_seed(option, self.seed)

    def _check_beta_of_method(self) -> None:
        """Two things are called beta: a log ratio's factor, and CARDS's field."""
        if self.beta is None or self.base is not None or self.method not in METHODS:
            return
        if "beta" in method_fields(self.method):
            raise ConfigError(
                f"--beta = {self.beta}: the factor of a log ratio; valid: with --base; the field"
                f" of {self.method} is written beta={self.beta:g}"
            )

    def _check_models(self) -> None:
        kind = check_models(option, self.policy, self.spec, self._engine)
        check_room(option, self.max_new_tokens, self.policy)
        self._check_engine(kind)
        if kind is not None:
            unread = UNREAD_BY_KIND.get(kind, NO_CACHE)
            refuse_unread(self, {**unread, **self.unread_delimiter(kind, "--aggregation")})
            self.check_step_tag(kind)
        check_dtype(option, self.dtype, kind)

    def _unread(self) -> dict[str, str]:
        """The options that nothing reads with the method, each with the reason."""
        reasons = {}
        method = METHODS[self.method]
        if not method.needs_scorer:
            reasons = dict.fromkeys(OF_REWARD, f"--method {self.method} asks for no scores")
        if not method.samples_policy:
            why = f"--method {self.method} takes the policy's logits as they are"
            reasons |= {"temperature": why, "top_p": why}
        if not method.is_random:
            reasons["seed"] = f"--method {self.method} draws nothing"
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
            if self.spec is not None:
                check_model(self.spec.checkpoint)
        except (ValueError, ModuleNotFoundError) as error:
            raise ConfigError(f"--engine = 'vllm': {error}") from error
