"""What jobs/decode.py and the Decoder refuse, and what they make of a method's fields."""

import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import NAN_WORD

from actors.search import _load
from jobs.batch.decode_options import DecodeOptions
from orchestrator.config.engine_choice import engine_notice, engine_of
from orchestrator.config.load import ConfigError
from orchestrator.decoding.decoder import Decoder
from orchestrator.decoding.methods import method_of, parsed
from orchestrator.decoding.prompts import PromptReader
from orchestrator.scorers.kind import make_kind
from orchestrator.search.methods.beam import ChunkBeamSearch
from orchestrator.search.methods.cards import Cards
from orchestrator.search.methods.general import GeneralSearch
from orchestrator.search.problem import NOT_A_NUMBER

GIVEN: dict[str, Any] = {
    "method": "cbs", "fields": [], "kind": None, "base": None, "aggregation": None,
    "score_label": None, "position": "closed",
    "max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0, "seed": 0,
    "actors": 1, "threads": 1, "max_actors": None, "max_concurrent": 4,
    "policy_cache_mib": None, "reward_cache_mib": 16,
    "shard_rows": 4, "dtype": "float32", "device": "cpu",
    "engine": "auto", "force": False, "out": "out",
}  # fmt: skip


@pytest.fixture
def options(word_policy: str, word_reward: str, tmp_path: Path) -> DecodeOptions:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "order 1 ."}\n')
    return DecodeOptions(policy=word_policy, reward=word_reward, prompts=str(source), **GIVEN)


def test_fields_are_set_over_the_configs_defaults() -> None:
    assert method_of("cbs", parsed(["beams=4", "method.chunk=16"])) == ChunkBeamSearch(
        beams=4, candidates=8, chunk=16
    )
    assert method_of("tbs", {}).settings["chunk"] == 1
    assert method_of("general", {"granularity": "token"}) == GeneralSearch(
        granularity="token", sequences=4, candidates=4
    )
    cards = method_of("cards", parsed(["target_reward=-1", "beta=0.5"]))
    assert isinstance(cards, Cards) and cards.entropy_threshold == 7.0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "beam"}, r"method = 'beam': no such method; valid: base, greedy, bon, "),
        ({"fields": ["width=4"]}, r"method\.width = 4: cbs has no such field; valid: beams, "),
        ({"fields": ["beams=0"]}, r"method\.beams = 0: .*(at least|greater than or equal to) 1"),
        ({"fields": ["beams=many"]}, r"method\.beams = 'many': .*integer"),
        ({"fields": ["beams"]}, r"'beams': valid: the method's fields as name=value"),
        ({"method": "cards"}, r"method\.target_reward: missing; cards needs it as a number"),
        ({"method": "tbs", "fields": ["chunk=2"]}, r"method\.chunk = 2: "),
        ({"reward": None}, r"--reward: missing; --method cbs needs scores; valid: .*greedy"),
        ({"reward": "/no/model"}, r"--reward = '/no/model': no such folder"),
        ({"policy": "/no/model"}, r"--policy = '/no/model': no such folder"),
        ({"prompts": "/no/file.jsonl"}, r"--prompts = '/no/file.jsonl': no such file; valid: "),
        ({"prompts": "/no/file.csv"}, r"--prompts = '/no/file.csv': unknown format"),
        ({"temperature": 0.0}, r"--temperature = 0.0: valid: a finite number over 0"),
        ({"actors": 3, "max_actors": 2}, r"--max-actors = 2: less than --actors; valid: 3 or more"),
        ({"top_p": 1.5}, r"--top-p = 1.5: valid: "),
        (
            {"max_new_tokens": 256},
            r"--max-new-tokens = 256: the context of the policy is 256 .*at most 255",
        ),
        ({"kind": "encoder"}, r"--reward = '.*': "),
        (
            {"method": "cards", "fields": ["target_reward=1", "beta=1"], "engine": "vllm"},
            r"--engine = 'vllm': cards needs the policy's entropies, .*; valid: transformers",
        ),
    ],
)
def test_options_that_cannot_be_are_refused_with_what_is_valid(
    options: DecodeOptions, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        DecodeOptions(**{**vars(options), **changed}).prompt_reader()


def test_auto_is_the_engine_that_was_measured_faster(options: DecodeOptions) -> None:
    assert options.engines.policy.engine == "transformers"
    assert engine_of("auto", "cbs", make_kind("sequence", {})) == "transformers"
    assert "measured faster than vLLM on CPUs" in engine_notice("auto", "cpu")
    assert engine_notice("auto", "cuda") == (
        "engine: transformers; vLLM has not been measured on cuda yet; set engine to vllm to use it"
    )
    assert engine_notice("transformers", "cpu") == ""


def test_vllm_is_refused_for_what_it_does_not_score() -> None:
    with pytest.raises(
        ValueError, match="only reward models of kind 'sequence'; this one is of kind 'step_tag'"
    ):
        engine_of("vllm", "cbs", make_kind("step_tag", {}))


def test_vllm_runs_both_models_where_it_is_asked_for(options: DecodeOptions, vllm: None) -> None:
    chosen = DecodeOptions(**{**vars(options), "engine": "vllm"})
    assert chosen.prompt_reader() is not None and chosen.engines.policy.engine == "vllm"
    assert chosen.engines.reward is not None and chosen.engines.reward.scorer.engine == "vllm"
    wide = DecodeOptions(**{**vars(chosen), "dtype": "bfloat16"})
    with pytest.raises(ConfigError, match="--dtype = 'bfloat16': not with --engine vllm"):
        wide.prompt_reader()


def test_the_split_of_the_memory_reaches_both_models(options: DecodeOptions) -> None:
    places = DecodeOptions(**{**vars(options), "policy_cache_mib": 9}).engines
    assert places.policy.cache_mib == 9
    assert places.reward is not None and places.reward.cache_mib == 16


def test_a_policy_alone_needs_no_reward_model(options: DecodeOptions) -> None:
    alone = DecodeOptions(**{**vars(options), "reward": None, "method": "greedy"})
    assert alone.prompt_reader().scorer is None and alone.engines.reward is None


def test_prompts_from_python_are_answered_in_order_and_bad_ones_say_why(
    word_policy: str, nan_reward: str
) -> None:
    decoder = Decoder(word_policy, nan_reward)
    chat = [{"role": "user", "content": "order 2 ."}]
    prompts: list[str | list[dict[str, str]]] = [
        "order 1 .",
        "",
        f"order {NAN_WORD} .",
        "order " * 300,
        chat,
    ]
    found = decoder.decode(prompts, "bon", n=3, max_new_tokens=6)
    assert [one.prompt_id for one in found] == [f"prompt-{n}" for n in range(5)]
    assert [one.failed for one in found[:3]] == [None, "empty prompt", NOT_A_NUMBER]
    assert found[3].failed == (
        "prompt too long for the policy: more than 250 tokens; its context is 256, of which 6 are"
        " reserved for the response"
    )
    assert found[0].text and found[4].text and found[4].score is not None
    assert found[4].cost.policy_tokens_sampled >= 3
    for ids in (["a", "a"], ["a"]):
        with pytest.raises(ValueError, match=r"prompt_ids = .*: valid: a different one for each"):
            decoder.decode(prompts[:2], "greedy", prompt_ids=ids)
    assert decoder.decode(prompts[:1], "greedy", prompt_ids=["7"])[0].prompt_id == "7"


def test_engines_that_others_replaced_are_freed(options: DecodeOptions) -> None:
    """They are cycles, which an actor's collector may not look at for long."""
    first = _load(options.engines)
    held = [weakref.ref(first.policy), weakref.ref(first.scorer)]  # type: ignore[attr-defined]
    first.close()
    del first
    for mib in (3, 4, 5):
        caches = {"policy_cache_mib": mib, "reward_cache_mib": mib}
        other = DecodeOptions(**{**vars(options), **caches})
        _load(other.engines).close()
    assert [one() for one in held] == [None, None]


def test_a_prompt_is_the_same_in_every_public_form(options: DecodeOptions) -> None:
    read = PromptReader(options.policy, options.spec, 0, 16, "file").read
    said = [{"role": "user", "content": "order 1 ."}]
    expected = read(5, {"prompt": "order 1 ."})
    for row in (
        {"prompt": said},
        {"prompt": '["order 1 ."]', "response_a": '["no ."]'},
        {"messages": [{"role": "human", "content": [{"type": "text", "text": "order 1 ."}]}]},
        {"conversations": [{"from": "human", "value": "order 1 ."}]},
        {"context": said, "completions": []},
        {"question": "order 1 .", "answer": "#### 1"},
        {"problem": "order 1 .", "solution": "so .", "answer": "1"},
    ):
        assert read(5, row) == expected


def test_a_vote_may_be_among_answers_as_mathematics() -> None:
    assert method_of("vote", parsed(["n=3", "answers=math"])).settings["answers"] == "math"
    with pytest.raises(ConfigError, match="answers = 'sympy'"):
        method_of("vote", parsed(["answers=sympy"]))
