"""Losses, gradients and a step against TRL's own trainers, on the same model and texts.

TRL tokenizes the conversations itself: its token ids are compared with ours first.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model
from orchestrator.conversations.chat import load_chat
from orchestrator.objectives.definitions.bradley_terry import BradleyTerry
from orchestrator.objectives.definitions.kto import KTO
from orchestrator.objectives.examples import ImplicitExample, PairExample
from orchestrator.objectives.objective import OBJECTIVES, LossContext
from orchestrator.rewards.log_ratio import response_log_probs
from orchestrator.tasks.helpdesk import agents

RELATIVE = 1e-5  # float32
BETA = 0.2
ROWS = 6


def conversations() -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected response; which is preferred does not matter here."""
    prompts = agents.prompts(ROWS, seed=8)
    first, second = ([agents.demonstration(p, seed) for p in prompts] for seed in (1, 2))
    return [
        (a.prompt.messages[0]["content"], a.response, b.response)
        for a, b in zip(first, second, strict=True)
    ]


def said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def common(folder: Path) -> dict[str, Any]:
    """Plain float32 on the CPU, one batch of everything, nothing reported."""
    return {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none",
        "gradient_checkpointing": False, "per_device_train_batch_size": 2 * ROWS,
        "disable_tqdm": True, "max_length": None,
    }  # fmt: skip


def batch_of(trainer: Any) -> dict[str, Tensor]:
    rows = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    return dict(trainer.data_collator(rows))


def paired() -> Dataset:
    rows = [
        {
            "prompt": said("user", x),
            "chosen": said("assistant", w),
            "rejected": said("assistant", v),
        }
        for x, w, v in conversations()
    ]
    return Dataset.from_list(rows)


def unpaired() -> Dataset:
    rows = [
        {"prompt": said("user", x), "completion": said("assistant", y), "label": label}
        for x, w, v in conversations()
        for y, label in ((w, True), (v, False))
    ]
    return Dataset.from_list(rows)


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def distance(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Norm of the difference by the norm of what is wanted, over all tensors together."""
    assert len(found) == len(wanted)
    far = sum(float((a - b).double().pow(2).sum()) for a, b in zip(found, wanted, strict=True))
    size = sum(float(b.double().pow(2).sum()) for b in wanted)
    return math.sqrt(far / size)


def equal(
    trainer: Any, batch: dict[str, Tensor], ours: Callable[[PreTrainedModel], Tensor]
) -> None:
    """Loss, gradient and one AdamW step of TRL's trainer and of ours, from the same weights."""
    model: PreTrainedModel = trainer.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses, slopes, steps = [], [], []
    for loss_of in (lambda _: trainer.compute_loss(model, dict(batch)), ours):
        model.load_state_dict(before)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        loss = loss_of(model)
        losses.append(float(loss.detach()))
        slopes.append(gradients(model, loss))
        optimizer.step()
        steps.append([value - before[name] for name, value in model.state_dict().items()])
    assert losses[1] == pytest.approx(losses[0], rel=RELATIVE)
    assert distance(slopes[1], slopes[0]) < RELATIVE
    assert distance(steps[1], steps[0]) < RELATIVE
    assert sum(float(g.norm()) for g in slopes[0]) > 1e-3


def implicit_rows(policy: str, reference: PreTrainedModel) -> list[ImplicitExample]:
    chat = load_chat(policy)
    rows = []
    for x, *responses in conversations():
        prompt = chat.prompt_ids(said("user", x))
        ids = tuple(chat.response_ids(y) + chat.closing_ids[:1] for y in responses)
        references = response_log_probs(reference, [(prompt, y) for y in ids], 0)
        rows.append(ImplicitExample(prompt, ids, (True, False), tuple(references)))
    return rows


def shaken(policy: str) -> PreTrainedModel:
    torch.manual_seed(5)
    model = load_policy(policy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def tokenizer_of(checkpoint: str) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.mark.parametrize(("objective", "name"), [("dpo", "sigmoid"), ("nca", "nca_pair")])
def test_dpo_and_nca(word_policy: str, tmp_path: Path, objective: Any, name: str) -> None:
    reference = shaken(word_policy)
    trainer = trl.DPOTrainer(
        model=load_policy(word_policy), ref_model=reference, train_dataset=paired(),
        args=trl.DPOConfig(beta=BETA, loss_type=[name], **common(tmp_path)),
        processing_class=tokenizer_of(word_policy),
    )  # fmt: skip
    rows = implicit_rows(word_policy, reference)
    for row, theirs in zip(rows, trainer.train_dataset, strict=True):
        assert tuple(theirs["prompt_ids"]) == row.prompt_ids
        assert (tuple(theirs["chosen_ids"]), tuple(theirs["rejected_ids"])) == row.responses
    equal(
        trainer, batch_of(trainer),
        lambda model: OBJECTIVES[objective].loss(LossContext(model, beta=BETA), rows)[0]
        / len(rows),
    )  # fmt: skip


@pytest.mark.parametrize(("weights", "positive"), [((1.5, 0.75), True), ((1.0, 1.0), False)])
def test_kto(
    word_policy: str, tmp_path: Path, weights: tuple[float, float], positive: bool
) -> None:
    """The KL term is that of the batch, in nats, and no less than 0; beta multiplies it later."""

    class Weighted(KTO):
        desirable_weight, undesirable_weight = weights

    models = [load_policy(word_policy), shaken(word_policy)]
    reference, model = models if positive else reversed(models)
    trainer = trl.KTOTrainer(
        model=model, ref_model=reference, train_dataset=unpaired(),
        args=trl.KTOConfig(
            beta=BETA, desirable_weight=weights[0], undesirable_weight=weights[1],
            **common(tmp_path),
        ),
        processing_class=tokenizer_of(word_policy),
    )  # fmt: skip
    rows = []
    for theirs in trainer.train_dataset:
        names = ("prompt_ids", "completion_ids", "KL_completion_ids")
        prompt, response, unrelated = (tuple(theirs[name]) for name in names)
        known = response_log_probs(reference, [(prompt, response), (prompt, unrelated)], 0)
        label = bool(theirs["label"])
        rows.append(
            ImplicitExample(prompt, (response,), (label,), (known[0],), unrelated, known[1])
        )
    pairs = implicit_rows(word_policy, reference)
    assert [(row.prompt_ids, row.responses[0]) for row in rows] == [
        (row.prompt_ids, response) for row in pairs for response in row.responses
    ]
    total, count = KTO.step_terms(LossContext(model), rows)
    assert count == 2 * ROWS and (total > 1 if positive else total < -1)
    kl = total / count
    equal(
        trainer, batch_of(trainer),
        lambda model: Weighted.loss(LossContext(model, beta=BETA, step_mean=kl), rows)[0]
        / len(rows),
    )  # fmt: skip


def test_bradley_terry_on_whole_pairs(word_reward: str, tmp_path: Path) -> None:
    model = load_reward_model(word_reward)
    tokenizer = tokenizer_of(word_reward)
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = trl.RewardTrainer(
        model=model, train_dataset=paired(), args=trl.RewardConfig(**common(tmp_path)),
        processing_class=tokenizer,
    )  # fmt: skip
    chat, rows = load_chat(word_reward), []
    for (x, w, v), theirs in zip(conversations(), trainer.train_dataset, strict=True):
        prompt = chat.prompt_ids(said("user", x))
        chosen, rejected = chat.response_ids(w), chat.response_ids(v)
        assert tuple(theirs["chosen_ids"]) == prompt + chosen + chat.closing_ids
        assert tuple(theirs["rejected_ids"]) == prompt + rejected + chat.closing_ids
        rows.append(PairExample(prompt, chosen, rejected, (len(chosen),), (len(rejected),), (1.0,)))
    equal(
        trainer, batch_of(trainer),
        lambda model: BradleyTerry.loss(LossContext(model, closing_ids=chat.closing_ids), rows)[0]
        / len(rows),
    )  # fmt: skip
