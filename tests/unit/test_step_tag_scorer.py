"""Step-tag reward models against separate forwards over texts with the tags written in by hand."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.reward_kinds import MAKERS, SIZES, STEPS, WIDTH, bytes_with, rewrite, sentence_piece
from support.reward_oracles import BY_HAND, USER
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from orchestrator.checkpoints.checkpoint import save_checkpoint
from orchestrator.choices import Aggregation
from orchestrator.conversations.chat import Chat
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.scorers.step_tag import StepTagScorer
from orchestrator.search.engines import Ids, ScoreRequest

TOLERANCE = 1e-4
KINDS = ("process_head", "token_classes", "shepherd")
BY_MATHS: dict[str, Callable[[list[float]], float]] = {
    "last": lambda r: r[-1], "min": min, "mean": lambda r: sum(r) / len(r), "sum": sum,
    "product": math.prod,
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return request.param, MAKERS[request.param](tmp_path_factory.mktemp(request.param))


def scorer_of(made: tuple[str, str], how: Aggregation = "last") -> StepTagScorer:
    tag = "\n\n" if made[0] == "token_classes" else None
    return StepTagScorer(made[1], aggregation=how, step_tag=tag)


def asked(chat: Chat, response: str = "".join(STEPS)) -> tuple[Ids, Ids]:
    """The prompt and the response in the model's tokens."""
    text = chat.conversation(USER, response)
    return text.prompt_ids, text.response_ids


@torch.no_grad()
def step_rewards(made: tuple[str, str], prefix: Ids) -> list[float]:
    return BY_HAND[made[0]](made[1], prefix)


@pytest.mark.parametrize("how", BY_MATHS)
def test_a_prefixs_score_is_the_aggregate_of_its_steps_rewards(
    made: tuple[str, str], how: Aggregation
) -> None:
    scorer = scorer_of(made, how)
    prompt, y = asked(scorer.chat)
    rewards = [step_rewards(made, y[:t]) for t in range(1, len(y) + 1)]
    assert [len(r) for r in (rewards[0], rewards[-1])] == [1, 3]
    wanted = [BY_MATHS[how](r) for r in rewards]
    assert torch.tensor(wanted).std() > 0.01
    # All prefixes in one row, in an order of their own, some twice and past the end.
    cuts = [len(y), *range(len(y), 0, -1), 1, 10**6]
    found = scorer.prefix_scores([prompt], [y], [cuts])[0]
    assert found == pytest.approx([wanted[min(t, len(y)) - 1] for t in cuts], abs=TOLERANCE)

    # The same by extensions of every prefix: inside a step, over one end and over two.
    for split in range(len(y) + 1):
        ends = range(max(split, 1), len(y) + 1)
        request = ScoreRequest(prompt, y[:split], tuple(y[split:t] for t in ends))
        (scored,) = scorer.score([request])
        assert scored.scores == pytest.approx(wanted[max(split, 1) - 1 :], abs=TOLERANCE)


def test_all_prefixes_come_from_one_forward(made: tuple[str, str]) -> None:
    scorer = scorer_of(made, "min")
    prompt, y = asked(scorer.chat)
    calls: list[int] = []
    scorer._pass.model.base_model.register_forward_hook(lambda *_: calls.append(1))
    scorer.prefix_scores([prompt], [y], [range(1, len(y) + 1)])
    assert len(calls) == 1


def test_a_prefix_that_ends_with_a_step_carries_one_tag(made: tuple[str, str]) -> None:
    """And no delimiter but Math-Shepherd's, behind the tag, where another step follows."""
    scorer = scorer_of(made, "sum")
    prompt, y = asked(scorer.chat)
    first, step = (len(scorer.chat.response_ids(text)) for text in (STEPS[0], STEPS[0].strip()))
    tag = len(scorer.closing("closed"))
    between = 1 if made[0] == "shepherd" else 0
    (inside, end, behind) = (
        scorer.score([ScoreRequest(prompt, y[:t], ((),))])[0] for t in (step - 1, first, first + 1)
    )
    bare = [scored.tokens_computed - len(prompt) for scored in (inside, end, behind)]
    assert bare == [step - 1 + tag, step + tag, step + tag + between + 1 + tag]
    assert bare[1] == scorer.tokens_of_prefixes(prompt, y[:first], [10**6]) - len(prompt)
    assert end.scores[0] == pytest.approx(sum(step_rewards(made, y[:first])), abs=TOLERANCE)
    assert len(step_rewards(made, y[:first])) == 1 and len(step_rewards(made, y[: first + 1])) == 2


def test_the_prefix_of_a_request_is_computed_once(made: tuple[str, str]) -> None:
    scorer = scorer_of(made)
    prompt, y = asked(scorer.chat)
    several = tuple((token,) for token in dict.fromkeys(y[:4]))
    (scored,) = scorer.score([ScoreRequest(prompt, y[:5], several)])
    tails = len(several) * (1 + len(scorer.closing("closed")))
    assert scored.tokens_computed == len(prompt) + 5 + tails
    assert scored.tokens_reused == (len(several) - 1) * (len(prompt) + 5)


def test_the_empty_prefix_is_judged_by_a_tag_behind_the_prompt(made: tuple[str, str]) -> None:
    scorer = scorer_of(made, "mean")
    prompt, y = asked(scorer.chat)
    (wanted,) = step_rewards(made, ())
    assert scorer.prefix_scores([prompt], [y], [[0]])[0] == pytest.approx([wanted], abs=TOLERANCE)
    (scored,) = scorer.score([ScoreRequest(prompt, (), ((),))])
    assert scored.scores == pytest.approx([wanted], abs=TOLERANCE)


def test_another_delimiter_cuts_other_steps(tmp_path: Path) -> None:
    """The tag stands behind every full stop: the tokens are those written here."""
    checkpoint = MAKERS["process_head"](tmp_path)
    scorer = StepTagScorer(checkpoint, aggregation="product", step_delimiter=" .")
    plain = StepTagScorer(checkpoint)
    chat = scorer.chat
    (tag,) = scorer.closing("open")
    parts = [chat.response_ids(text) for text in ("that is 5 .", " so the answer", " is 5 .", " ?")]
    prompt, y = chat.prompt_ids(USER), tuple(i for part in parts for i in part)
    first, second = (*parts[0], tag), (*parts[1], *parts[2], tag)
    texts = [first, first + second, first + second + (*parts[3], tag)]
    # Without a delimiter in it a text that ends in the tag is its own step.
    single = [plain.prefix_scores([prompt], [text[:-1]], [[10**6]])[0][0] for text in texts]
    found = scorer.prefix_scores([prompt], [y], [[len(parts[0]), len(y) - 1, len(y)]])[0]
    assert len(parts[3]) == 1
    assert found == pytest.approx(
        [single[0], single[0] * single[1], math.prod(single)], abs=TOLERANCE
    )


def test_a_tag_that_the_tokenizer_does_not_know_is_refused(tmp_path: Path) -> None:
    process = MAKERS["process_head"](tmp_path / "process")
    shepherd = MAKERS["shepherd"](tmp_path / "shepherd")
    bytes_with().save_pretrained(tmp_path / "process")
    with pytest.raises(ValueError, match=r"process: .*does not know the step tag '<extra_0>'"):
        StepTagScorer(process)
    own = StepTagScorer(process, step_tag="<extra_0>")
    assert own.chat.text(own.closing("open")) == "<extra_0>", "what is said may be several tokens"
    with pytest.raises(ValueError, match="tag: empty; valid: the text after a step"):
        StepTagScorer(process, step_tag="")
    sentence_piece("▁+", "▁-").save_pretrained(tmp_path / "shepherd")
    with pytest.raises(ValueError, match=r"shepherd: .*does not know the step tag 'ки'"):
        StepTagScorer(shepherd)
    other = MAKERS["shepherd"](tmp_path / "other")
    word_tokenizer(["ки", "+"]).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other: '-' is not a single token"):
        StepTagScorer(other, step_delimiter="ки")
    with pytest.raises(
        ValueError, match=r"tokenizer loses this text .*, so no step would end; valid"
    ):
        StepTagScorer(other)


def test_the_tag_of_token_classes_is_in_the_vocabulary_or_a_line_end(tmp_path: Path) -> None:
    """TRL's line ends are tags and delimiters; two lines are two steps."""
    checkpoint = MAKERS["token_classes"](tmp_path / "line ends")
    scorer, summed = StepTagScorer(checkpoint), StepTagScorer(checkpoint, aggregation="sum")
    assert scorer.chat.text(scorer.closing("closed")) == "\n"
    prompt, y = asked(scorer.chat, "that is 5 .\nso 5")
    end = len(scorer.chat.response_ids("that is 5 .\n"))
    both = [scorer.prefix_scores([prompt], [y], [[t]])[0][0] for t in (end, len(y))]
    assert summed.prefix_scores([prompt], [y], [[len(y)]])[0] == pytest.approx([sum(both)])
    assert scorer.tokens_of_prefixes(prompt, y[:end], [10**6]) == len(prompt) + end

    checkpoint = MAKERS["token_classes"](tmp_path / "special")
    bytes_with("<extra_0>").save_pretrained(tmp_path / "special")
    rewrite(tmp_path / "special", {"model.embed_tokens.weight": torch.randn(301, WIDTH)})
    config = json.loads((tmp_path / "special" / "config.json").read_text())
    (tmp_path / "special" / "config.json").write_text(json.dumps({**config, "vocab_size": 301}))
    special = StepTagScorer(checkpoint)
    assert special.closing("open") == (special.chat.tokenizer.convert_tokens_to_ids("<extra_0>"),)
    blank = special.chat.response_ids("that is 5 .\n\n")
    step = special.chat.response_ids("that is 5 .")
    assert blank[: len(step)] == step and len(blank) == len(step) + 2
    assert special.tokens_of_prefixes((), blank, [10**6]) == len(step) + 1, (
        "a blank line ends its steps"
    )
    assert special.tokens_of_prefixes((), blank[:-1], [10**6]) == len(blank), (
        "one line end may go on otherwise"
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, WIDTH), "score.weight has 3 labels, and activation 'softmax' needs two"),
        ((2, WIDTH + 1), "has 33 inputs, not 32"),
    ],
)
def test_token_classes_of_another_shape_are_refused(
    shape: tuple[int, int], message: str, tmp_path: Path
) -> None:
    checkpoint = MAKERS["token_classes"](tmp_path)
    rewrite(tmp_path, {"score.weight": torch.zeros(shape), "score.bias": torch.zeros(shape[0])})
    with pytest.raises(ValueError, match=f"{tmp_path}: .*{message}"):
        StepTagScorer(checkpoint)


@torch.no_grad()
def test_capped_logits_are_capped_and_rescaled_ones_refused(tmp_path: Path) -> None:
    """As in Gemma 2, and in Granite."""
    tokenizer = sentence_piece("▁ки", "▁+", "▁-")
    sizes = {**SIZES, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "head_dim": 8}
    torch.manual_seed(1)
    for name, model in (
        ("gemma", Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=0.5, **sizes)).eval()),
        ("granite", GraniteForCausalLM(GraniteConfig(logits_scaling=2.0, **sizes))),
    ):
        save_checkpoint(model, tokenizer, tmp_path / name)
    scorer = StepTagScorer(str(tmp_path / "gemma"))
    prompt, y = asked(scorer.chat, "that is 5 .")
    text = torch.tensor([prompt + y + scorer.closing("open")])
    verdicts = tokenizer.convert_tokens_to_ids(["▁-", "▁+"])
    logits = Gemma2ForCausalLM.from_pretrained(tmp_path / "gemma").eval()(text).logits[0, -1]
    wanted = float(logits[verdicts].softmax(-1)[1])
    assert 0.27 < wanted < 0.73, "logits lie within half a nat"
    found = scorer.prefix_scores([prompt], [y], [[len(y)]])[0]
    assert found == pytest.approx([wanted], abs=TOLERANCE)
    with pytest.raises(
        ValueError, match=r"granite: .*transforms its logits by \['logits_scaling'\]"
    ):
        StepTagScorer(str(tmp_path / "granite"))


def test_a_plain_classifier_has_no_step_tags(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no step tags: it is a LlamaForSequenceClassification"):
        StepTagScorer(MAKERS["sequence"](tmp_path))
