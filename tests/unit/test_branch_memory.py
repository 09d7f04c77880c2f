"""What branches take beside their trunks: bounded as asked, measured in processes of their own."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from support.present import present
from support.reward_kinds import process_head
from test_training_loop import job
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from jobs.benchmarks.measure import begin_peak, peak_mib
from orchestrator.checkpoints.checkpoint import load_reward_model
from orchestrator.choices import BRANCH_MEMORY_MIB
from orchestrator.config.decoding import ScoringConfig
from orchestrator.conversations.chat import load_chat
from orchestrator.objectives.examples import PairExample
from orchestrator.objectives.objective import LossContext
from orchestrator.rewards import one_pass
from orchestrator.rewards.one_pass import packed_scores
from orchestrator.rewards.packed import prefix_row
from orchestrator.scorers.loading import load_scorer
from orchestrator.scorers.spec import ScorerSpec
from orchestrator.training.model_with_loss import ModelWithLoss

PROMPT, LENGTH, CLOSING, ROWS = 60, 1500, (5, 6, 2), 4


def peak_of_branches(attention: str, memory: int) -> float:
    """MiB over the trunks' own, of full TLT with a closing of three tokens over long responses."""
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=2048,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    text = torch.randint(3, 64, (ROWS, PROMPT + LENGTH)).tolist()
    rows = [
        prefix_row(tuple(ids[:PROMPT]), [tuple(ids[PROMPT:])], [range(1, LENGTH + 1)], CLOSING)
        for ids in text
    ]
    before: list[float] = []
    chunks: Callable[..., object] = one_pass._chunks

    def begin(*arguments: object) -> object:
        """The trunks are computed; nothing of a branch is."""
        before.append(present(begin_peak()))
        return chunks(*arguments)

    setattr(one_pass, "_chunks", begin)  # noqa: B010 - this process ends with the measurement
    with torch.no_grad():
        packed_scores(model.eval(), rows, 0, memory)
    return present(peak_mib()) - before[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_branches_of_long_responses_stay_within_their_memory(
    attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every tensor is the kernel's: what is freed is not resident, and hides nothing.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    peaks = {}
    for memory in (32, 128):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peaks[memory] = process.submit(peak_of_branches, attention, memory).result()
    # No allowance: the estimate counts what eager attention and the gathers hold at their widest.
    assert peaks[32] <= 32 and peaks[128] <= 128
    assert peaks[128] > 1.2 * peaks[32] > 0, "more is used where more is given"


def forwards(model: PreTrainedModel, run: object) -> int:
    """How often the backbone is asked."""
    count = [0]

    def called(*_: object) -> None:
        count[0] += 1

    handle = model.base_model.register_forward_hook(called)
    run()  # type: ignore[operator]
    handle.remove()
    return count[0]


@pytest.mark.parametrize("kind", ["sequence", "step_tag"])
def test_a_scorer_takes_the_memory_of_its_spec(kind: str, byte_reward: str, tmp_path: Path) -> None:
    spec = ScorerSpec(byte_reward if kind == "sequence" else process_head(tmp_path / "tag"))
    counts = []
    for memory in (1, BRANCH_MEMORY_MIB):
        scorer = load_scorer(replace(spec, branch_memory_mib=memory))
        response = tuple(range(10, 130))
        found = forwards(
            scorer._pass.model,  # type: ignore[attr-defined]
            lambda s=scorer, y=response: s.prefix_scores([(3, 4)], [y], [range(1, len(y) + 1)]),
        )
        counts.append(found)
    assert counts[0] > counts[1] > 1


def test_training_takes_the_memory_of_its_job(byte_reward: str, tmp_path: Path) -> None:
    chat, cuts = load_chat(byte_reward), tuple(range(1, 101))
    responses = tuple(range(10, 110)), tuple(range(110, 210))
    pair = PairExample((3, 4), *responses, cuts, cuts, (1.0,) * len(cuts))
    counts = []
    for memory in (1, BRANCH_MEMORY_MIB):
        given = job(byte_reward, tmp_path, 0, branch_memory_mib=memory)
        model = ModelWithLoss(given, load_reward_model(byte_reward), chat)
        counts.append(forwards(model.model, lambda m=model: m([pair])))
    assert counts[0] > counts[1] > 1


def test_the_config_and_the_library_agree_on_the_default() -> None:
    assert ScoringConfig().branch_memory_mib == BRANCH_MEMORY_MIB
    assert ScorerSpec("x").branch_memory_mib == BRANCH_MEMORY_MIB
    assert LossContext.branch_memory_mib == BRANCH_MEMORY_MIB
