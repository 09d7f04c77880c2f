"""The train loop with real DeepSpeed on one process: it learns, and leaves a checkpoint."""

import gc
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from support.single_process import SingleProcessBackend
from transformers import AutoModelForSequenceClassification

from orchestrator.checkpoints.checkpoint import load_reward_model
from orchestrator.config.load import ROOT
from orchestrator.conversations.chat import load_chat
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.objectives.examples import (
    Example,
    ImplicitExample,
    PairExample,
    TextExample,
    with_unrelated,
)
from orchestrator.scorers.log_ratio import LogRatioScorer
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.engines import SampleRequest
from orchestrator.training.files import read_examples, write_examples
from orchestrator.training.job import TrainingJob
from orchestrator.training.loop import Training, run_job
from orchestrator.training.model_with_loss import ModelWithLoss

Zero = Literal[0, 1, 2, 3]
GOOD, BAD = "thank you for writing .", "read the manual ."


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of this process alone, as Ray Train would make it."""
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        for name, value in {
            "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }.items():  # fmt: skip
            patch.setenv(name, value)
        dist.init_process_group("gloo", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def job(checkpoint: str, folder: Path, zero: Zero, **changes: Any) -> TrainingJob:
    plain = TrainingJob(
        key="test",
        objective="bradley_terry",
        start="policy_to_reward",
        checkpoint=checkpoint,
        examples=str(folder / "examples.parquet"),
        output=str(folder / "checkpoint"),
        learning_rate=1e-2,
        batch_size=8,
        epochs=4,
        steps=None,
        warmup_steps=0,
        closed=True,
        seed=0,
        deepspeed={
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 1.0,
            "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "weight_decay": 0.0}},
            "zero_optimization": {"stage": zero},
        },
        precision="float32",
    )
    return replace(plain, **changes)


def preferences(checkpoint: str, folder: Path) -> list[Example]:
    """Politeness wins, cut at two lengths."""
    chat = load_chat(checkpoint)
    good, bad = chat.response_ids(GOOD), chat.response_ids(BAD)
    rows: list[Example] = []
    for number in range(16):
        prompt = chat.prompt_ids([{"role": "user", "content": f"order {number % 10} ."}])
        rows.append(PairExample(prompt, good, bad, (2, 5), (2, 5), (1.0, 2.0)))
    folder.mkdir(exist_ok=True)
    write_examples(folder / "examples.parquet", rows)
    return rows


def scores(checkpoint: str) -> list[float]:
    engine = SequenceScorer(checkpoint)
    prompt = engine.chat.prompt_ids([{"role": "user", "content": "order 3 ."}])
    texts = [engine.chat.response_ids(text) for text in (GOOD, BAD)]
    return [row[0] for row in engine.prefix_scores([prompt] * 2, texts, [[5]] * 2)]


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_it_learns_a_preference_and_transformers_loads_the_checkpoint(
    group: None, word_policy: str, tmp_path: Path, zero: Zero
) -> None:
    preferences(word_policy, tmp_path)
    reports: list[tuple[int, int, float]] = []
    result = run_job(
        job(word_policy, tmp_path, zero),
        SingleProcessBackend(progress=lambda *report: reports.append(report)),
    )
    assert result.steps == 16 and result.rows == 16 and result.partial_pairs == 32
    # A head of zeros: every score is 0, and the first loss is the mean weight times ln 2.
    assert result.loss[0] == pytest.approx(1.5 * 0.6931, abs=1e-3)
    assert result.loss[-1] < 0.3 * result.loss[0]
    assert result.accuracy[0] == 0.0 and result.accuracy[-1] == 1.0
    assert [(done, of) for done, of, _ in reports] == [(i + 1, 16) for i in range(16)]
    assert [loss for *_, loss in reports] == pytest.approx(result.loss)

    checkpoint = str(tmp_path / "checkpoint")
    good, bad = scores(checkpoint)
    assert good > bad + 0.5
    assert sorted(p.suffix for p in Path(checkpoint).glob("*.safetensors")) == [".safetensors"]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())
    assert load_chat(checkpoint).closing_ids == load_chat(word_policy).closing_ids


def test_the_zero_stages_train_alike(group: None, word_policy: str, tmp_path: Path) -> None:
    losses = []
    for zero in (0, 1, 3):
        folder = tmp_path / str(zero)
        preferences(word_policy, folder)
        losses.append(
            run_job(job(word_policy, folder, zero, epochs=2), SingleProcessBackend()).loss
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] == pytest.approx(losses[0], rel=1e-3)


def test_offloaded_to_the_cpu_it_trains_as_it_does_otherwise(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    preferences(word_policy, tmp_path)
    file = ROOT / "configs" / "deepspeed" / "zero3_offload.json"
    offloaded = json.loads(file.read_text())
    assert set(offloaded["zero_optimization"]) >= {"offload_param", "offload_optimizer"}
    plain = {**offloaded, "zero_optimization": {"stage": 3}}
    found, wanted = (
        run_job(job(word_policy, tmp_path, 3, deepspeed=settings), SingleProcessBackend())
        for settings in (offloaded, plain)
    )
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.loss[-1] < 0.3 * found.loss[0]


def test_it_trains_on_from_a_reward_model_for_an_exact_number_of_steps(
    group: None, word_reward: str, tmp_path: Path
) -> None:
    preferences(word_reward, tmp_path)
    before = scores(word_reward)
    result = run_job(
        job(word_reward, tmp_path, 1, start="reward", steps=7, precision="bfloat16"),
        SingleProcessBackend(),
    )
    assert result.steps == len(result.loss) == 7
    after = scores(str(tmp_path / "checkpoint"))
    assert after[0] - after[1] > before[0] - before[1]


def test_a_policy_learns_to_say_what_it_is_shown(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    chat = load_chat(word_policy)
    prompt = chat.prompt_ids([{"role": "user", "content": "order 1 ."}])
    shown = chat.response_ids(GOOD)
    write_examples(
        tmp_path / "examples.parquet", [TextExample(prompt, shown + chat.closing_ids)] * 16
    )
    result = run_job(
        job(word_policy, tmp_path, 1, objective="language_modelling", start="policy", epochs=15),
        SingleProcessBackend(),
    )  # fmt: skip
    assert result.partial_pairs == 0
    assert result.loss[-1] < 0.5 * result.loss[0] and result.accuracy[-1] > result.accuracy[0]
    policy = HuggingFacePolicy(str(tmp_path / "checkpoint"))
    (answer,) = policy.sample([SampleRequest(prompt, (), (0,), 20, greedy=True)])
    assert answer.continuations[0].token_ids == shown
    assert answer.continuations[0].stop == "end"


def test_a_loss_that_is_no_number_stops_the_training(
    group: None, broken_reward: str, tmp_path: Path
) -> None:
    preferences(broken_reward, tmp_path)
    with pytest.raises(
        ValueError,
        match=r"the loss of step 1 of \d+ is not finite; the first 4 of the step's 4 rows, of all"
        r" workers, in .*examples.parquet \(row numbers from 0\): \[(\d+, ){3}\d+\]$",
    ):
        run_job(job(broken_reward, tmp_path, 1, start="reward", steps=2), SingleProcessBackend())


def test_the_same_job_twice_gives_the_same_losses(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    preferences(word_policy, tmp_path)
    runs = [
        run_job(job(word_policy, tmp_path, 1, epochs=1), SingleProcessBackend()).loss
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_a_finished_training_leaves_nothing_in_memory(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    preferences(word_policy, tmp_path)
    gc.collect()
    others = [one for one in gc.get_objects() if isinstance(one, Training | ModelWithLoss)]
    gc.disable()  # nothing is freed that the training does not free itself
    try:
        run_job(job(word_policy, tmp_path, 1, epochs=1), SingleProcessBackend())
        held = [one for one in gc.get_objects() if isinstance(one, Training | ModelWithLoss)]
        held = [one for one in held if all(one is not other for other in others)]
    finally:
        gc.enable()
    assert not held


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_micro_batches_train_as_the_whole_batch_does(
    group: None, word_policy: str, tmp_path: Path, zero: Zero
) -> None:
    uneven(word_policy, tmp_path)
    whole, cut = (
        run_job(
            job(word_policy, tmp_path, zero, micro_batch_tokens=most, epochs=1),
            SingleProcessBackend(),
        )
        for most in (None, 40)
    )
    assert len(whole.loss) == 4
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert cut.accuracy == whole.accuracy


def test_activations_computed_again_train_as_those_kept(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    uneven(word_policy, tmp_path)
    kept, again = (
        run_job(
            job(word_policy, tmp_path, 1, gradient_checkpointing=on, epochs=1),
            SingleProcessBackend(),
        )
        for on in (False, True)
    )
    assert again.loss == pytest.approx(kept.loss, rel=1e-5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_training_taken_up_again_ends_as_an_undisturbed_one(
    group: None, word_policy: str, tmp_path: Path, zero: Zero
) -> None:
    uneven(word_policy, tmp_path)
    plain = job(word_policy, tmp_path, zero, epochs=3, checkpoint_steps=4, evaluation_steps=3,
                evaluation=str(tmp_path / "held_out.parquet"))  # fmt: skip
    write_held_out(word_policy, tmp_path)
    undisturbed = run_job(plain, SingleProcessBackend())
    weights = load_reward_model(plain.output).state_dict()

    def killed_at_ten(done: int, steps: int, loss: float) -> None:
        if done == 10:
            raise Killed

    with pytest.raises(Killed):
        run_job(plain, SingleProcessBackend(tmp_path / "kept", killed_at_ten))
    seen: list[int] = []
    heard: dict[int, dict[str, float]] = {}
    again = run_job(
        plain,
        SingleProcessBackend(
            tmp_path / "kept",
            lambda done, steps, loss: seen.append(done),
            lambda step, metrics: heard.update({step: dict(metrics)}),
        ),
    )
    assert seen == list(range(9, undisturbed.steps + 1)), "steps 9 and 10 are replayed, no other"
    assert again.resumed_at == 8
    assert again.loss == undisturbed.loss and again.accuracy == undisturbed.accuracy
    assert again.evaluation == undisturbed.evaluation
    assert list(heard) == [3, 6, *range(9, again.steps + 1, 3)], "those before the kill too"
    for name, curve in again.evaluation.items():
        assert curve == [(step, metrics[name]) for step, metrics in heard.items()]
    for name, value in load_reward_model(plain.output).state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_checkpoint_of_another_training_is_left_alone(
    group: None, word_policy: str, tmp_path: Path
) -> None:
    uneven(word_policy, tmp_path)
    first = job(word_policy, tmp_path, 1, epochs=1, checkpoint_steps=2)
    run_job(first, SingleProcessBackend(tmp_path / "kept"))
    assert (
        run_job(replace(first, key="another"), SingleProcessBackend(tmp_path / "kept")).resumed_at
        == 0
    )


def test_held_out_rows_are_measured_as_scored_one_by_one(
    group: None, word_reward: str, tmp_path: Path
) -> None:
    preferences(word_reward, tmp_path)
    rows = write_held_out(word_reward, tmp_path)
    still = job(word_reward, tmp_path, 1, start="reward", steps=1, learning_rate=0.0,
                evaluation=str(tmp_path / "held_out.parquet"), micro_batch_tokens=30)  # fmt: skip
    found = run_job(still, SingleProcessBackend()).evaluation
    engine, prompts = SequenceScorer(word_reward), [row.prompt_ids for row in rows]
    sides = [
        torch.tensor(engine.prefix_scores(prompts, ids, [row.chosen_cuts for row in rows]))
        for ids in ([row.chosen_ids for row in rows], [row.rejected_ids for row in rows])
    ]
    gaps = (sides[0] - sides[1]).double()
    wanted = {
        "held_out_loss": torch.log1p(torch.exp(-gaps[:, -1])).mean(),
        "held_out_accuracy": (gaps[:, -1] > 0).double().mean(),
        "held_out_AR_t1": (gaps[:, 0] > 0).double().mean(),
        "held_out_AR_t3": (gaps[:, 1] > 0).double().mean(),
    }
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        ((step, measured),) = found[name]
        assert step == 1 and measured == pytest.approx(float(value), abs=1e-5)


def uneven(checkpoint: str, folder: Path) -> list[PairExample]:
    """Pairs of different lengths, cut at different places."""
    chat = load_chat(checkpoint)
    rows = []
    for number in range(16):
        good = chat.response_ids(f"{GOOD} " * (1 + number % 3))
        bad = chat.response_ids(f"{BAD} " * (1 + number % 2))
        prompt = chat.prompt_ids([{"role": "user", "content": f"order {number % 10} ."}])
        cuts = (1 + number % 4, 5)
        rows.append(PairExample(prompt, good, bad, cuts, cuts, (1.0, 1.5)))
    folder.mkdir(exist_ok=True)
    write_examples(folder / "examples.parquet", rows)
    return rows


def write_held_out(checkpoint: str, folder: Path) -> list[PairExample]:
    """Other prompts, cut at t = 1 and 3 and at the whole length."""
    rows = [
        replace(row, prompt_ids=row.prompt_ids * 2, chosen_cuts=(1, 3, 99),
                rejected_cuts=(1, 3, 99), weights=(1.0, 1.0, 1.0))
        for row in uneven(checkpoint, folder / "other")[:7]
    ]  # fmt: skip
    write_examples(folder / "held_out.parquet", rows)
    return rows


FIRST_LOSS = {"dpo": 0.6931, "nca": 1.3863, "kto": 0.5, "ce": 0.6931}  # where r = 0


@pytest.mark.parametrize("objective", FIRST_LOSS)
def test_an_implicit_prm_learns_a_preference_from_the_policy(
    group: None, word_policy: str, tmp_path: Path, objective: str
) -> None:
    policy = HuggingFacePolicy(word_policy)
    end, rows = policy.chat.closing_ids[:1], []
    for row in preferences(word_policy, tmp_path):
        assert isinstance(row, PairExample)
        responses = (row.chosen_ids + end, row.rejected_ids + end)
        rows.append(ImplicitExample(row.prompt_ids, responses, (True, False), ()))
    rows = with_unrelated(rows)
    references = [
        policy.log_probs([(row.prompt_ids, y) for y in (*row.responses, row.unrelated_ids)])
        for row in rows
    ]
    known = [
        replace(row, reference_log_probs=tuple(found[:2]), unrelated_reference_log_prob=found[2])
        for row, found in zip(rows, references, strict=True)
    ]
    write_examples(tmp_path / "examples.parquet", known)
    assert read_examples(tmp_path / "examples.parquet") == known
    asked = job(word_policy, tmp_path, 1, objective=objective, start="policy", beta=0.2,
                learning_rate=3e-3, evaluation=str(tmp_path / "examples.parquet"))  # fmt: skip
    whole, cut = (
        run_job(replace(asked, micro_batch_tokens=most), SingleProcessBackend())
        for most in (None, 60)
    )
    assert whole.loss[0] == pytest.approx(FIRST_LOSS[objective], abs=1e-3)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-4)
    assert whole.loss[-1] < 0.8 * whole.loss[0]
    assert whole.evaluation["held_out_accuracy"][-1][1] > 0.9
    scorer = LogRatioScorer(str(tmp_path / "checkpoint"), word_policy, beta=0.2)
    good, bad = (policy.chat.response_ids(text) for text in (GOOD, BAD))
    prompt = rows[0].prompt_ids
    (first,), (second,) = scorer.prefix_scores([prompt] * 2, [good, bad], [[99]] * 2)
    assert first > second
