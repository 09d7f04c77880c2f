"""Public process reward models score as their cards' code does, by every path."""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from support.public_models import PUBLIC, QUESTION
from support.template_families import CHATML

from jobs.batch.scorer_options import parsed_format, parsed_score_at
from orchestrator.config.load import ConfigError
from orchestrator.config.sections import PresetName
from orchestrator.conversations.chat import load_chat
from orchestrator.data.prefixes import Prefixes
from orchestrator.scorers.checkpoint_checks import check_scorer
from orchestrator.scorers.detect import kind_of
from orchestrator.scorers.formats import PRESETS, StepFormat
from orchestrator.scorers.loading import chat_of, load_scorer
from orchestrator.scorers.row_reader import RowReader
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.search.engines import ScoreRequest

TOLERANCE = 1e-5
USER = [{"role": "user", "content": QUESTION}]
STEPS = ["First add 2 and 3.", "That is 5.", "So the answer is 5!"]
STEP_PRESETS = [name for name in PUBLIC if PRESETS[name].kind == "step_tag"]


@pytest.fixture(scope="module", params=PUBLIC)
def public(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    name = str(request.param)
    maker, rewards, delimiter = PUBLIC[name]
    return name, maker(tmp_path_factory.mktemp("public")), torch.no_grad()(rewards), delimiter


def test_the_reward_of_each_step_is_the_cards(public) -> None:  # type: ignore[no-untyped-def]
    name, folder, rewards, delimiter = public
    spec = ScorerSpec(folder, preset=name)
    assert check_scorer(spec).name == PRESETS[name].kind
    scorer = load_scorer(spec)
    text = delimiter.join(STEPS)
    wanted = rewards(folder, text)
    assert len(wanted) == (3 if name in STEP_PRESETS and name != "rlhflow-orm" else 1)
    assert torch.tensor(rewards(folder, "5") + wanted).std() > 0.002
    parts = scorer.chat.conversation(USER, text)
    read = RowReader(spec, "closed", "response", Prefixes.parse("steps"), 0, "file")
    row = read.read(1, {"prompt": QUESTION, "response": text})
    assert (row.prompt_ids, row.responses) == (parts.prompt_ids, (parts.response_ids,))
    found = scorer.prefix_scores([row.prompt_ids], row.responses, row.cuts)[0]
    if len(wanted) == len(found):
        assert found == pytest.approx(wanted, abs=TOLERANCE)
    assert found[-1] == pytest.approx(wanted[-1], abs=TOLERANCE), "of the whole solution"


@pytest.mark.parametrize("split", [0, 2, 9])
def test_search_reads_them_from_cached_prefixes(public, split: int, byte_reward: str) -> None:  # type: ignore[no-untyped-def]
    """Unfinished steps are judged as if they were whole; the policy's tokenizer may be another."""
    name, folder, rewards, delimiter = public
    spec = ScorerSpec(folder, preset=name)
    text = delimiter.join(STEPS)
    cut = delimiter.join([*STEPS[:2], "So the answer"])
    for policy in (folder, byte_reward):
        scorer, chat = load_scorer(spec, policy_chat=load_chat(policy)), load_chat(policy)
        prompt = scorer.chat.reward_prompt_ids(USER)
        whole, part = chat.response_ids(text), chat.response_ids(cut)
        shared = next(
            n for n, pair in enumerate(zip(whole, part, strict=False)) if pair[0] != pair[1]
        ) if whole[: len(part)] != part else len(part)  # fmt: skip
        start = min(split, shared)
        request = ScoreRequest(
            prompt, whole[:start], (whole[start:], part[start:]), (True, name not in STEP_PRESETS)
        )
        found = scorer.score([request])[0].scores
        wanted = [rewards(folder, text)[-1], rewards(folder, cut)[-1]]
        assert found == pytest.approx(wanted, abs=TOLERANCE), policy


@pytest.mark.parametrize("how", ["min", "product", "mean"])
def test_steps_are_aggregated(public, how: str) -> None:  # type: ignore[no-untyped-def]
    name, folder, rewards, delimiter = public
    if name not in STEP_PRESETS:
        return
    scorer = load_scorer(ScorerSpec(folder, preset=name, aggregation=how))  # type: ignore[arg-type]
    text = delimiter.join(STEPS)
    parts, each = scorer.chat.conversation(USER, text), rewards(folder, text)
    found = scorer.prefix_scores([parts.prompt_ids], [parts.response_ids], [[10**6]])[0][0]
    by_hand = {"min": min(each), "product": math.prod(each), "mean": sum(each) / len(each)}
    assert found == pytest.approx(by_hand[how], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["rlhflow-prm", "rlhflow-orm", "granite-math-prm"])
def test_white_space_at_the_ends_of_a_turn_is_left_out(name: str, tmp_path: Path) -> None:
    """As the template trims it, or the card's code strips it."""
    maker, rewards, _ = PUBLIC[name]
    folder = maker(tmp_path / name)
    scorer = load_scorer(ScorerSpec(folder, preset=name))
    prompt = scorer.chat.reward_prompt_ids(USER)
    for text in ("a\n\n\nb", "a.\n\n\tb", "  a  \n\n  b  \n\n c ", "First\n\n", "a\r\n\r\nb"):
        with torch.no_grad():
            wanted = rewards(folder, text)[-1]
        parts = scorer.chat.conversation(USER, text)
        job = scorer.prefix_scores([parts.prompt_ids], [parts.response_ids], [[10**6]])[0][0]
        ids = scorer.chat.response_ids(text)
        search = scorer.score([ScoreRequest(prompt, ids[:2], (ids[2:],), (True,))])[0].scores[0]
        assert (job, search) == pytest.approx((wanted, wanted), abs=TOLERANCE), text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score_token": 3}, "score_token = 3: preset 'rlhflow-prm' has no score_token"),
        ({"step_format": StepFormat(tag="x")}, "format: preset 'rlhflow-prm' sets another format"),
        ({"preset": "rlhflow-orm", "step_delimiter": "x"}, "step_delimiter = 'x': preset"),
        ({"preset": None, "kind": "step_tag", "score_token": 0}, "kind = 'step_tag': score_token"),
        ({"preset": None, "step_format": StepFormat(tag="x"), "score_token": 0}, "format: no"),
        ({"preset": None, "score_at": True}, "score_at = True: valid: a text or a whole number"),
        ({"preset": None, "score_token": 999_999}, "score_token = 999999: no such token"),
    ],
)  # fmt: skip
def test_fields_that_contradict_are_refused(fields, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = PUBLIC["rlhflow-prm"][0](tmp_path / "rlhflow")
    with pytest.raises(ValueError, match=message):
        kind_of(ScorerSpec(folder, **{"preset": "rlhflow-prm", **fields}))


def test_no_item_of_a_format_is_read_in_silence() -> None:
    for items, message in (
        (["tag=x", "tag=y"], "tag is given twice"),
        (["tag=x", "delimiter_behind_tag=maybe"], "delimiter_behind_tag = 'maybe': valid: true"),
        (["tag=x", "right=+", "wrong=+"], "wrong = '[+]': the same as right"),
    ):
        with pytest.raises(ConfigError, match=message):
            parsed_format(items)


def test_what_files_tell_needs_no_preset(tmp_path: Path) -> None:
    for name in ("skywork-o1-prm", "qwen2.5-math-rm"):
        folder = PUBLIC[name][0](tmp_path / name)
        assert kind_of(ScorerSpec(folder)) == PRESETS[name].kind
        said, told = (
            load_scorer(spec) for spec in (ScorerSpec(folder, preset=name), ScorerSpec(folder))
        )
        parts = said.chat.conversation(USER, "First add.\nThat is 5.")
        scores = [
            one.prefix_scores([parts.prompt_ids], [parts.response_ids], [[10**6]])
            for one in (said, told)
        ]
        assert scores[0] == scores[1]


def test_what_files_do_not_tell_is_refused(tmp_path: Path) -> None:
    folder = PUBLIC["rlhflow-prm"][0](tmp_path / "a language model")
    with pytest.raises(
        ValueError, match=r"its files do not show how it scores; valid: a preset \(math-shep"
    ):
        load_scorer(ScorerSpec(folder))
    for name, message in (
        ("skywork-o1-prm", "none of the layers .* among its weights"),
        ("qwen2.5-math-rm", "cannot be a scorer of kind 'sequence'"),
        ("math-shepherd", "does not know the step tag 'ки'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_scorer(ScorerSpec(folder, preset=name))
    with pytest.raises(ValueError, match=r"preset = 'x': no such preset; valid: math-shepherd, "):
        ScorerSpec(folder, preset="x")
    with pytest.raises(ValueError, match="kind = 'encoder': preset 'rlhflow-prm' is of kind"):
        ScorerSpec(folder, "encoder", preset="rlhflow-prm")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "tag: empty"),
        ({"tag": "x", "delimiter": ""}, "delimiter: empty"),
        ({"layout": "turns"}, "answer: empty"),
        ({"layout": "turns", "answer": "+", "tag": "x"}, "tag = 'x': not read with layout 'turns'"),
        ({"layout": "rows", "tag": "x"}, "layout = 'rows': no such value; valid: tags, turns"),
        ({"tag": "x", "activation": "sigmod"}, "activation = 'sigmod': no such value"),
        ({"tag": 5}, "tag = 5: valid: a text$"),
        ({"tag": "x", "delimiter": 5}, "delimiter = 5: valid: a text, or null$"),
        ({"tag": "x", "question": "ok?"}, "question = 'ok\\?': not read with layout 'tags'"),
        (
            {"layout": "turns", "answer": "+", "prompt": "raw"},
            "prompt = 'raw': layout 'turns' needs",
        ),
        ({"tag": "x", "wrong": "-"}, "wrong = '-': set without right"),
        ({"tag": "x", "right": "+", "activation": "none"}, "activation = 'none': the tokens right"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepFormat(**fields)  # type: ignore[arg-type]


def test_a_detected_process_reward_model_writes_its_own_prompt(tmp_path: Path) -> None:
    """Skywork-o1's base has a chat template, which its card does not use."""
    folder = Path(PUBLIC["skywork-o1-prm"][0](tmp_path))
    (folder / "chat_template.jinja").write_text(CHATML)
    spec = ScorerSpec(str(folder))
    told, loaded = (
        chat.tokenizer.decode(chat.reward_prompt_ids(USER))
        for chat in (chat_of(spec), load_scorer(spec).chat)
    )
    assert told == loaded == f"<|endoftext|>{QUESTION}\n"


def test_a_token_to_score_at_is_of_whole_responses_alone(tmp_path: Path) -> None:
    folder = PUBLIC["rlhflow-prm"][0](tmp_path)
    with pytest.raises(ValueError, match="score_at = -1: a scorer of kind 'step_tag' does not"):
        check_scorer(ScorerSpec(folder, preset="rlhflow-prm", score_at=-1))


def test_the_command_line_takes_texts_as_they_stand() -> None:
    found = parsed_format(["layout=tags", r"tag=\n", "right=yes", "wrong=-", "delimiter=null"])
    assert found == StepFormat(tag="\n", right="yes", wrong="-", delimiter=None)
    assert parsed_format([]) is None
    assert [parsed_score_at(text) for text in (None, "-2", "<|eot_id|>")] == [
        None,
        -2,
        "<|eot_id|>",
    ]
    for wrong, message in (
        ("tagg=x", "--format = 'tagg=x': valid: name=value, of prompt, layout"),
        ("tag", "--format = 'tag': valid: name=value"),
        ("layout=rows", "--format: layout = 'rows': no such value"),
    ):
        with pytest.raises(ConfigError, match=message):
            parsed_format([wrong])


def test_the_configs_presets_are_those_that_there_are() -> None:
    assert get_args(PresetName) == tuple(PRESETS)
