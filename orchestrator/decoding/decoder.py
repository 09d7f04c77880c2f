"""Reward-guided decoding from Python: a policy, a scorer, prompts, and a method by name."""

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from orchestrator.choices import Dtype, Position
from orchestrator.config.load import ConfigError
from orchestrator.conversations.chat import load_chat
from orchestrator.data.rejects import BadRow
from orchestrator.decoding.backend import Loaded, ModelBackend
from orchestrator.decoding.checks import (
    check_choice,
    check_counts,
    check_dtype,
    check_max_new_tokens,
    check_models,
    check_prompts,
    check_sampling,
    check_seed,
)
from orchestrator.decoding.methods import method_of, unscored_methods
from orchestrator.decoding.prompts import PromptReader
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.records import Cost, Message
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.problem import Problem, PromptFailed
from orchestrator.search.runner import run_searches

Chats = Sequence[str | Sequence[Message]]
SHOWN = 3  # ids in an error message
T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """The response to one prompt.

    If it failed, ``failed`` is the reason, and all other fields but ``prompt_id`` have their
    defaults.
    The other fields are those of a Response; ``text`` is its decoded tokens.
    """

    prompt_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    stop: Literal["end", "length"] | None = None
    score: float | None = None
    step_scores: tuple[float, ...] = ()
    cost: Cost = field(default_factory=Cost)
    failed: str | None = None


class Decoder:
    """A policy and, for methods that need scores, a reward model, in this process.

    Args:
        policy: checkpoint folder or hub name.
        reward: checkpoint folder or hub name, or a spec; None for plain decoding.
        position: `closed`: a prefix is scored after the closing tokens of the reward model's
            template; `open`: at its last token.
        temperature: sampling temperature of the policy.
        top_p: probability mass of the policy's nucleus sampling.
        device: torch device name.
        dtype: dtype of both models' weights.
        fold_system: whether a system message that the policy's template does not render is folded
            into the first user message; the reward model's setting is in its spec.

    Raises:
        ConfigError: an argument is not valid, or a checkpoint is damaged or not a policy or reward
            model; the message names the argument, its value and what is valid.
    """

    def __init__(
        self,
        policy: str | PathLike[str],
        reward: str | PathLike[str] | ScorerSpec | None = None,
        *,
        position: Position = "closed",
        temperature: float = 1.0,
        top_p: float = 1.0,
        device: str = "cpu",
        dtype: Dtype = "float32",
        fold_system: bool = True,
    ) -> None:
        policy = _resolved(policy)
        spec = ScorerSpec(_resolved(reward)) if isinstance(reward, str | PathLike) else reward
        self._policy, self._spec, self._fold_system = policy, spec, fold_system
        check_sampling(_argument_name, temperature, top_p)
        check_choice(_argument_name, position=(position, get_args(Position)))
        check_dtype(_argument_name, dtype, check_models(_argument_name, policy, spec))

        def load() -> Loaded:
            engine = HuggingFacePolicy(policy, temperature, top_p, device, dtype=dtype)
            if self._spec is None:
                return engine, None
            return engine, load_scorer(self._spec, position, load_chat(policy), device, dtype)

        self._backend = ModelBackend(load)

    def decode(
        self,
        prompts: Chats,
        method: str = "cbs",
        *,
        max_new_tokens: int = 64,
        seed: int = 0,
        max_concurrent: int = 32,
        prompt_ids: Sequence[str] | None = None,
        **fields: object,
    ) -> list[Decoded]:
        """Answer prompts, each a text or a list of messages; result i is of prompt i.

        Args:
            prompts: texts or lists of messages.
            method: the name of a search method.
            max_new_tokens: length limit of a response.
            seed: keys all draws together with a prompt's id.
            max_concurrent: number of concurrent prompts.
            prompt_ids: distinct ids; default: "prompt-" and the numbers from 0.
            fields: fields of the method, e.g. ``beams=4``.

        Raises:
            ConfigError: there is no such method or field, a value is not valid, the method needs
                scores and there is no reward model, ``prompts`` is not a list, or ids are not
                distinct.
        """
        search = method_of(method, fields)
        if self._spec is None and search.needs_scorer:
            raise ConfigError(
                f"method = {method!r}: it needs scores; valid: with a reward model, or"
                f" {', '.join(unscored_methods())}"
            )
        check_seed(_argument_name, seed)
        check_counts(_argument_name, max_new_tokens=max_new_tokens, max_concurrent=max_concurrent)
        check_max_new_tokens(_argument_name, max_new_tokens, self._policy)
        prompts = check_prompts(_argument_name, prompts)
        reader = PromptReader(
            self._policy, self._spec, seed, max_new_tokens, fold_system=self._fold_system
        )
        ids = _distinct_ids(prompt_ids, len(prompts), reader.stem)
        problems: list[Problem] = []
        answers: dict[str, Decoded] = {}
        for number, (prompt_id, prompt) in enumerate(zip(ids, prompts, strict=True)):
            try:
                problems.append(reader.read(number, {"prompt_id": prompt_id, "prompt": prompt}))
            except BadRow as bad:
                answers[prompt_id] = Decoded(prompt_id, failed=str(bad))
        answers |= self._search(search, problems, max_concurrent)
        return [answers[prompt_id] for prompt_id in ids]

    def _search(
        self, method: AnySearchMethod, problems: Sequence[Problem], max_concurrent: int
    ) -> dict[str, Decoded]:
        """Return the response to each problem, or why its search failed, by prompt id."""
        answers: dict[str, Decoded] = {}

        def failed(problem: Problem, reason: PromptFailed) -> None:
            answers[problem.prompt_id] = Decoded(problem.prompt_id, failed=str(reason))

        backend, chat = self._backend, load_chat(self._policy)
        run = run_searches(
            problems, method.run, backend, max_concurrent=max_concurrent, on_failure=failed
        )
        for one in _result(run):
            answers[one.prompt_id] = Decoded(
                one.prompt_id, chat.response_text(one.token_ids), one.token_ids, one.stop,
                one.score, one.step_scores, one.cost,
            )  # fmt: skip
        return answers


def _result(run: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; in another thread if this one runs a loop, as in Jupyter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run).result()


def _argument_name(field: str) -> str:
    """Return how an error names an argument: as in the signature."""
    return field


def _distinct_ids(prompt_ids: Sequence[str] | None, prompts: int, stem: str) -> list[str]:
    """Return the id of each prompt, numbered from 0 by default.

    Raises:
        ConfigError: the ids are not distinct, or there are not as many as prompts.
    """
    if prompt_ids is None:
        return [f"{stem}-{number}" for number in range(prompts)]
    ids = list(map(str, prompt_ids))
    if len(set(ids)) < len(ids) or len(ids) != prompts:
        raise ConfigError(
            f"prompt_ids = {ids[:SHOWN]!r} (of {len(ids)}): valid: a different one for each"
            f" of {prompts} prompts"
        )
    return ids


def _resolved(checkpoint: str | PathLike[str]) -> str:
    """Return a folder with ~ expanded; hub names and invalid values unchanged."""
    if not isinstance(checkpoint, str | PathLike):
        return checkpoint
    path = Path(checkpoint).expanduser()
    return str(path) if path.is_dir() else str(checkpoint)
