"""What ``Decoder`` is given in Python is checked as a command line's: the same sentences."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import ConfigError
from orchestrator.decoding.decoder import Decoder
from orchestrator.scorers.spec import ScorerSpec

NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def decoder(word_policy: str, word_reward: str) -> Decoder:
    return Decoder(word_policy, word_reward)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        *(("temperature", value, f"temperature = {value!r}: valid: a finite number over 0")
          for value in (-1, 0, NAN, INFINITE, -INFINITE, "1", None, True)),
        *(("top_p", value, f"top_p = {value!r}: valid: a number over 0, at most 1")
          for value in (2, 0, -0.5, NAN, "0.9", None)),
        ("position", "end", "position = 'end': valid: closed, open"),
        ("dtype", "float16", "dtype = 'float16': valid: float32, float64, bfloat16"),
    ],
)  # fmt: skip
def test_how_the_policy_samples(argument: str, value: Any, said: str, word_policy: str) -> None:
    with pytest.raises(ConfigError) as error:
        Decoder(word_policy, **{argument: value})
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        *(("max_new_tokens", value, f"max_new_tokens = {value!r}: valid: a whole number")
          for value in (0, -3, 1.5, None, "8")),
        ("max_new_tokens", 256, "max_new_tokens = 256: the context .* is 256 .* at most 255"),
        *(("seed", value, f"seed = {value!r}: valid: a whole number from 0 to")
          for value in (-1, 2**63, 0.5, NAN, None)),
        ("max_concurrent", 0, "max_concurrent = 0: valid: a whole number of at least 1"),
        ("method", "beam", "method = 'beam': no such method; valid: base, greedy"),
        ("beams", 0, "method.beams = 0: "),
        ("prompt_ids", ["a", "a"], r"prompt_ids = \['a', 'a'\] \(of 2\): valid: a different one"),
        ("prompt_ids", [], r"prompt_ids = \[\] \(of 0\): valid: a different one for each of 2"),
    ],
)  # fmt: skip
def test_how_prompts_are_answered(argument: str, value: Any, said: str, decoder: Decoder) -> None:
    with pytest.raises(ConfigError, match=said):
        decoder.decode(["order 1 .", "order 2 ."], **{argument: value})


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("order 1 2 3 4 5 .", "prompts = 'order 1 2 3 4 5 .': not a list of prompts; valid: a"),
        (b"order", "prompts = b'order': not a list of prompts"),
        ({"prompt": "order"}, r"prompts = \{'prompt': 'order'\}: not a list of prompts"),
        (7, "prompts = 7: not a list of prompts"),
        ([{"role": "user", "content": "order 1 ."}],
         r"prompts\[0\] = \{'role': 'user', .*: a message, not a prompt; valid: a list of"),
    ],
)  # fmt: skip
def test_one_prompt_is_no_list_of_prompts(prompts: Any, said: str, decoder: Decoder) -> None:
    """A text of 17 characters was answered as 17 prompts."""
    with pytest.raises(ConfigError, match=said):
        decoder.decode(prompts, "greedy")


def test_prompts_that_cannot_be_answered_say_why(decoder: Decoder) -> None:
    prompts = (text for text in ["order 1 .", "", "order " * 300, [{"role": "user"}], 5])
    found = decoder.decode(prompts, "greedy", max_new_tokens=6)  # type: ignore[arg-type]
    assert [one.failed for one in found] == [
        None, "empty prompt",
        "prompt too long for the policy: more than 250 tokens; its context is 256, of which 6 are"
        " reserved for the response",
        "missing field: content", "wrong type: prompt is not a list of messages",
    ]  # fmt: skip


def test_prompts_are_answered_where_an_event_loop_runs(decoder: Decoder) -> None:
    """As in a cell of a notebook."""

    def answers() -> list[tuple[int, ...]]:
        found = decoder.decode(["order 1 .", "order 2 ."], "greedy", max_new_tokens=4)
        return [one.token_ids for one in found]

    async def cell() -> list[tuple[int, ...]]:
        return answers()

    assert asyncio.run(cell()) == answers()


MODELS: dict[str, tuple[Callable[[str, str], tuple[Any, Any]], str]] = {
    "a reward model as policy": (lambda p, r: (r, None), "policy = .*word_reward'.*it is a Llama"),
    "a policy as reward": (lambda p, r: (p, p), "reward = .*word_policy'.*no reward head"),
    "no folder": (lambda p, r: ("/no/model", None), "policy = '/no/model': no such folder; valid:"),
    "no folder of the reward": (lambda p, r: (p, "/no/model"), "reward = '/no/model': no such"),
    "no base": (lambda p, r: (p, ScorerSpec(p, base="/no/base")), "base = '/no/base': no such fo"),
    "no name": (lambda p, r: (3, None), "policy = 3: valid: a folder or hub name"),
    "no spec": (lambda p, r: (p, 3), "reward = 3: valid: a folder or hub name, or a ScorerSpec"),
    "a label that is not there": (
        lambda p, r: (p, ScorerSpec(r, score_label=2)), "score_label = 2: its head has one label"),
    "a dtype of another kind": (
        lambda p, r: (p, ScorerSpec(p, "log_ratio", base=p)), "dtype = 'float64': the reward mod"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_that_do_not_fit(name: str, word_policy: str, word_reward: str) -> None:
    make, said = MODELS[name]
    policy, reward = make(word_policy, word_reward)
    options: dict[str, Any] = {"dtype": "float64"} if "dtype" in name else {}
    with pytest.raises(ConfigError, match=said):
        Decoder(policy, reward, **options)


def test_a_method_that_asks_for_scores_needs_a_reward_model(word_policy: str) -> None:
    with pytest.raises(ConfigError, match="method = 'cbs': it needs scores; valid: with a rew"):
        Decoder(word_policy).decode(["order 1 ."])


def test_folders_may_be_paths(word_policy: str, word_reward: str) -> None:
    (one,) = Decoder(Path(word_policy), Path(word_reward)).decode(["order 1 ."], "bon", n=2)
    assert one.failed is None
