"""The log-ratio scorer against separate forwards of every prefix through both models."""

import math
from pathlib import Path

import pytest
import torch

from orchestrator.checkpoints.checkpoint import load_policy, save_checkpoint
from orchestrator.choices import Aggregation, Position
from orchestrator.conversations.chat import load_chat
from orchestrator.scorers.log_ratio import LogRatioScorer
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.search.engines import Ids, ScoreRequest
from orchestrator.tasks.helpdesk import agents

TOLERANCE = 1e-4  # float32, sums of some thirty tokens
BETA = 0.5
POSITIONS: list[Position] = ["closed", "open"]


def shaken(checkpoint: str, folder: Path) -> str:
    """The same model with other weights."""
    if not folder.exists():
        model = load_policy(checkpoint)
        torch.manual_seed(11)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        save_checkpoint(model, load_chat(checkpoint).tokenizer, folder)
    return str(folder)


@pytest.fixture
def base(word_policy: str, checkpoints: Path) -> str:
    return shaken(word_policy, checkpoints / "word_base")


def texts(count: int) -> list[tuple[str, str]]:
    rows = [agents.demonstration(prompt, 5) for prompt in agents.prompts(count, seed=5)]
    return [(row.prompt.messages[0]["content"], row.response) for row in rows]


def ids_of(checkpoint: str, count: int) -> tuple[list[Ids], list[Ids]]:
    chat = load_chat(checkpoint)
    prompts = [chat.prompt_ids([{"role": "user", "content": x}]) for x, _ in texts(count)]
    return prompts, [chat.response_ids(y) for _, y in texts(count)]


@torch.no_grad()
def log_prob(checkpoint: str, prompt: Ids, response: Ids) -> float:
    """One forward over one text."""
    model = load_policy(checkpoint).eval()
    logits = model(torch.tensor([prompt + response])).logits[0].double()
    steps = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    return sum(float(steps[t, token]) for t, token in enumerate(response))


def slow(numerator: str, denominator: str, prompt: Ids, prefix: Ids, finished: bool) -> float:
    """The end token counts of a finished response, as its training had it."""
    closing = (load_chat(numerator).end_id,) if finished else ()
    own, other = (log_prob(m, prompt, prefix + closing) for m in (numerator, denominator))
    return BETA * (own - other)


@pytest.mark.parametrize("position", POSITIONS)
def test_every_prefix_scores_as_separate_forwards_of_it(
    word_policy: str, base: str, position: Position
) -> None:
    scorer = LogRatioScorer(word_policy, base, BETA, position)
    prompts, responses = ids_of(word_policy, 3)
    cuts = [[0, 1, 5], [3, 10**6, 3], [len(responses[2])]]
    expected = [
        [slow(word_policy, base, x, y[:t], t >= len(y)) for t in own]
        for x, y, own in zip(prompts, responses, cuts, strict=True)
    ]
    found = scorer.prefix_scores(prompts, responses, cuts)
    assert torch.tensor(expected[0]).std() > 0.05
    for mine, wanted in zip(found, expected, strict=True):
        assert mine == pytest.approx(wanted, abs=TOLERANCE)

    finished = (False, True, True, False)
    requests = [
        ScoreRequest(x, y[:2], ((), y[2:5], y[2:], y[2:]), finished)
        for x, y in zip(prompts, responses, strict=True)
    ]  # fmt: skip
    for request, scored, y in zip(requests, scorer.score(requests), responses, strict=True):
        x = request.prompt_ids
        ends = zip((2, 5, len(y), len(y)), finished, strict=True)
        wanted = [slow(word_policy, base, x, y[:t], end) for t, end in ends]
        assert abs(wanted[2] - wanted[3]) > 10 * TOLERANCE, "the end token has a log ratio"
        assert scored.scores == pytest.approx(wanted, abs=TOLERANCE)
        # Two models read the prefix once; nothing is written behind the extensions.
        assert scored.tokens_computed == 2 * (len(x) + 2 + 3 + 2 * (len(y) - 2))
        assert scored.tokens_reused == 2 * 3 * (len(x) + 2)


def test_both_positions_are_the_same_and_come_from_one_pass(word_policy: str, base: str) -> None:
    scorer = LogRatioScorer(word_policy, base, BETA)
    prompts, responses = ids_of(word_policy, 2)
    cuts = [[2, 7], [4]]
    calls: list[int] = []
    for model in scorer.models:
        model.base_model.register_forward_hook(lambda *args: calls.append(1))
    both = scorer.prefix_scores(prompts, responses, cuts, ["open", "closed"])
    assert len(calls) == 2
    closed = scorer.prefix_scores(prompts, responses, cuts, ["closed"])
    open_ = scorer.prefix_scores(prompts, responses, cuts, ["open"])
    for row, first, second in zip(both, open_, closed, strict=True):
        assert row == pytest.approx([*first, *second], abs=1e-5)
        assert first == pytest.approx(second, abs=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_the_rewards_of_steps_are_what_each_step_adds(
    word_policy: str, base: str, position: Position
) -> None:
    chat = load_chat(word_policy)
    (prompt,), _ = ids_of(word_policy, 1)
    response = chat.response_ids("hello . first seal the lid . then oil the")
    assert len(response) == 10
    # Where the steps of a prefix of t tokens begin: a prefix that ends a step begins no other.
    begins = {10: [0, 2, 7], 7: [0, 2], 8: [0, 2, 7], 1: [0], 0: [0]}
    rewards: dict[int, list[float]] = {}
    for t, starts in begins.items():
        text = response[:t] + ((chat.end_id,) if t == len(response) else ())
        rewards[t] = []
        for first, last in zip(starts, [*starts[1:], len(text)], strict=True):
            before, step = prompt + text[:first], text[first:last]
            ratio = log_prob(word_policy, before, step) - log_prob(base, before, step)
            rewards[t].append(BETA * ratio)
    wanted: dict[Aggregation, list[float]] = {
        "last": [steps[-1] for steps in rewards.values()],
        "min": [min(steps) for steps in rewards.values()],
        "mean": [sum(steps) / len(steps) for steps in rewards.values()],
        "sum": [sum(steps) for steps in rewards.values()],
        "product": [math.prod(1 / (1 + math.exp(-r)) for r in row) for row in rewards.values()],
    }
    for how, expected in wanted.items():
        scorer = LogRatioScorer(
            word_policy, base, BETA, position, aggregation=how, step_delimiter="."
        )
        (found,) = scorer.prefix_scores([prompt], [response], [list(begins)])
        assert found == pytest.approx(expected, abs=TOLERANCE)
    plain = LogRatioScorer(word_policy, base, BETA, position)
    (whole,) = plain.prefix_scores([prompt], [response], [list(begins)])
    assert whole == pytest.approx(wanted["sum"], abs=TOLERANCE)


@pytest.mark.parametrize("position", POSITIONS)
def test_with_another_tokenizer_than_the_policys_the_text_decides(
    word_policy: str, byte_reward: str, checkpoints: Path, position: Position
) -> None:
    assert byte_reward  # it makes the policy below
    numerator = str(checkpoints / "byte_policy")
    denominator = shaken(numerator, checkpoints / "byte_base")
    policy_chat, own = load_chat(word_policy), load_chat(numerator)
    scorer = LogRatioScorer(numerator, denominator, BETA, position, policy_chat)
    assert not scorer.shares_tokenizer
    (x, y), *_ = texts(1)
    prompt, ids = own.prompt_ids([{"role": "user", "content": x}]), policy_chat.response_ids(y)
    assert own.response_ids(y) != ids
    (scored,) = scorer.score([ScoreRequest(prompt, ids[:4], ((), ids[4:]), (False, True))])
    words = y.split()
    wanted = [
        slow(numerator, denominator, prompt, own.response_ids(" ".join(words[:n])), n > 4)
        for n in (4, len(words))
    ]
    assert scored.scores == pytest.approx(wanted, abs=TOLERANCE)


def test_scores_do_not_depend_on_how_rows_are_batched(
    word_policy: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = LogRatioScorer(word_policy, base, BETA)
    prompts, responses = ids_of(word_policy, 4)
    cuts = [[3], [1, 2, 9], [10**6], [4, 4]]
    whole = scorer.prefix_scores(prompts, responses, cuts)
    monkeypatch.setattr("orchestrator.rewards.batching.TOKENS_PER_BATCH", 1)
    for found, expected in zip(scorer.prefix_scores(prompts, responses, cuts), whole, strict=True):
        assert found == pytest.approx(expected, abs=TOLERANCE)


def test_a_model_is_no_better_than_itself(word_policy: str) -> None:
    scorer = LogRatioScorer(word_policy, word_policy, BETA)
    prompts, responses = ids_of(word_policy, 2)
    assert scorer.prefix_scores(prompts, responses, [[0, 3, 9]] * 2) == [[0.0] * 3] * 2


def test_models_of_different_vocabularies_are_refused(
    word_policy: str, byte_reward: str, checkpoints: Path
) -> None:
    other = str(checkpoints / "byte_policy")
    assert Path(byte_reward).exists()
    with pytest.raises(ValueError, match=rf"{word_policy} and {other} have different vocabular"):
        LogRatioScorer(word_policy, other)


def test_a_weight_that_is_nan_stops_the_scoring_and_names_the_rows(
    word_policy: str, base: str
) -> None:
    scorer = LogRatioScorer(word_policy, base)
    with torch.no_grad():
        scorer.models[1].get_input_embeddings().weight[0, 0] = float("nan")
    prompts, responses = ids_of(word_policy, 2)
    with pytest.raises(
        RewardIsNotFinite, match=r"rewards of 2 of 2 rows are not finite: rows \[0, 1\]"
    ):
        scorer.prefix_scores(prompts, responses, [[3], [3]])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("how", [None, "min", "sum"])
def test_an_extension_scores_as_the_whole_text_from_two_forwards_of_each_model(
    word_policy: str, base: str, how: Aggregation | None, position: Position
) -> None:
    scorer = LogRatioScorer(word_policy, base, BETA, position, aggregation=how, step_delimiter=".")
    prompts, responses = ids_of(word_policy, 3)
    requests = [
        ScoreRequest(
            x, y[:split], (y[split : split + 1], (), y[split:], y[:1], y[split : split + 9])
        )
        for split, x, y in zip((0, 4, 12), prompts, responses, strict=True)
    ]
    calls: list[int] = []
    for model in scorer.models:
        model.base_model.register_forward_hook(lambda *_: calls.append(1))
    found = scorer.score(requests)
    assert len(calls) == 4, "the prefixes and the extensions of all requests, twice"
    for request, scored in zip(requests, found, strict=True):
        # A token more, so that the prefix is no whole response.
        whole = [request.prefix_ids + extension + (0,) for extension in request.extensions]
        cuts = [[len(y) - 1] for y in whole]
        alone = [
            scorer.prefix_scores([request.prompt_ids], [y], [cut])[0][0]
            for y, cut in zip(whole, cuts, strict=True)
        ]
        assert scored.scores == pytest.approx(alone, abs=TOLERANCE)
    (none,) = scorer.score([ScoreRequest(prompts[0], responses[0][:3], ((),))])
    three = scorer.prefix_scores(prompts[:1], responses[:1], [[3]])[0]
    assert none.scores == pytest.approx(three, abs=TOLERANCE)
