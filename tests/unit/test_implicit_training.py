"""Implicit PRM batches against one row at a time, by hand from all logits of a float64 model."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import FLOAT32_INSIDE
from support.present import present
from torch import Tensor, nn

from orchestrator.checkpoints.checkpoint import load_policy
from orchestrator.objectives.definitions.kto import KTO
from orchestrator.objectives.examples import Ids, ImplicitExample, with_unrelated
from orchestrator.objectives.objective import OBJECTIVES, LossContext

PAD, BETA, KL = 0, 0.3, 0.7
NAMES = ["dpo", "nca", "kto", "ce"]
PAIRS = [
    ImplicitExample(
        (5, 6, 7), ((8, 9, 10, 4), (11, 4)), (True, False), (-17.0, -9.5), (12, 13, 4), -13.0
    ),
    ImplicitExample((9,), ((12, 13, 4), (14, 15, 16, 17, 4)), (True, False), (-14.0, -20.0)),
    ImplicitExample(
        (20, 21), ((22, 4), (23, 24, 4)), (True, False), (-8.0, -15.0), (8, 9, 10, 4), -19.0
    ),
]
UNPAIRED = [
    ImplicitExample((5, 6), ((8, 9, 4),), (False,), (-12.0,)),
    ImplicitExample(
        (7,), ((10, 4), (11, 12, 4), (13, 4)), (True, True, False), (-9.0, -13.0, -11.0)
    ),
]


@pytest.fixture(scope="module")
def model(word_policy: str) -> nn.Module:
    model: nn.Module = load_policy(word_policy, torch.float64)
    return model.eval()


def context(model: nn.Module, step_mean: float = 0.0) -> LossContext:
    return LossContext(model, PAD, beta=BETA, step_mean=step_mean)


def log_prob(model: nn.Module, prompt: Ids, response: Ids) -> Tensor:
    logits = model(torch.tensor([prompt + response])).logits[0]
    steps = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    return torch.stack([steps[t, token] for t, token in enumerate(response)]).sum()


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def one_row(model: nn.Module, row: ImplicitExample, objective: str) -> tuple[Tensor, int]:
    """The formulas as they are published, in the plainest way."""
    r = [
        BETA * (log_prob(model, row.prompt_ids, y) - reference)
        for y, reference in zip(row.responses, row.reference_log_probs, strict=True)
    ]
    if objective == "dpo":
        return -torch.log(sigma(r[0] - r[1])), int(r[0] > r[1])
    if objective == "nca":
        loss = -torch.log(sigma(r[0])) - 0.5 * (torch.log(sigma(-r[0])) + torch.log(sigma(-r[1])))
        return loss, int(r[0] > r[1])
    right = sum(int((x > 0) == label) for x, label in zip(r, row.labels, strict=True))
    if objective == "kto":
        signs = [1 if label else -1 for label in row.labels]
        terms = [1 - sigma(sign * (x - BETA * KL)) for x, sign in zip(r, signs, strict=True)]
    else:
        terms = [
            -torch.log(sigma(x)) if label else -torch.log(1 - sigma(x))
            for x, label in zip(r, row.labels, strict=True)
        ]
    return torch.stack(terms).sum(), right


@pytest.mark.parametrize("objective", NAMES)
def test_loss_count_and_gradient_equal_those_of_row_after_row(
    model: nn.Module, objective: str
) -> None:
    rows = PAIRS if objective in ("dpo", "nca") else PAIRS + UNPAIRED
    model.zero_grad()
    loss, right = OBJECTIVES[objective].loss(context(model, step_mean=KL), rows)
    loss.backward()
    found = [present(parameter.grad).clone() for parameter in model.parameters()]

    model.zero_grad()
    total, count = 0.0, 0
    for row in rows:
        alone, good = one_row(model, row, objective)
        alone.backward()
        total, count = total + float(alone.detach()), count + good
    assert float(loss.detach()) == pytest.approx(total, abs=FLOAT32_INSIDE)
    assert right == count and 0 < count < sum(
        OBJECTIVES[objective].num_loss_terms(row) for row in rows
    )
    for mine, parameter in zip(found, model.parameters(), strict=True):
        assert torch.allclose(mine, present(parameter.grad), rtol=0, atol=FLOAT32_INSIDE)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-3


def test_the_weights_of_kto_are_those_of_right_and_wrong(model: nn.Module) -> None:
    def loss(desirable: float, undesirable: float) -> Tensor:
        class Weighted(KTO):
            desirable_weight, undesirable_weight = desirable, undesirable

        return Weighted.loss(context(model), UNPAIRED)[0]

    with torch.no_grad():
        right, wrong, both = loss(1.0, 0.0), loss(0.0, 1.0), loss(2.0, 0.5)
    assert float(both) == pytest.approx(float(2 * right + 0.5 * wrong), abs=FLOAT32_INSIDE)
    assert float(right) > 0 and float(wrong) > 0


def test_at_the_reference_itself_every_reward_is_zero(model: nn.Module) -> None:
    """The first step of a training: the losses of a reward of 0, and nobody is right yet."""
    with torch.no_grad():
        rows = [
            replace(
                row,
                reference_log_probs=tuple(
                    float(log_prob(model, row.prompt_ids, y)) for y in row.responses
                ),
            )
            for row in PAIRS
        ]
    ln2 = math.log(2)
    expected = {"dpo": 3 * ln2, "nca": 6 * ln2, "kto": 3.0, "ce": 6 * ln2}
    for objective in NAMES:
        loss, _ = OBJECTIVES[objective].loss(context(model), rows)
        assert float(loss.detach()) == pytest.approx(expected[objective], abs=FLOAT32_INSIDE)


def test_what_the_loss_is_a_mean_over() -> None:
    assert [OBJECTIVES[objective].num_loss_terms(PAIRS[0]) for objective in NAMES] == [1, 1, 2, 2]
    assert [OBJECTIVES["ce"].num_loss_terms(row) for row in UNPAIRED] == [1, 3]


def test_the_kl_term_is_the_log_ratio_of_the_unrelated_responses(model: nn.Module) -> None:
    with torch.no_grad():
        expected = sum(
            float(log_prob(model, row.prompt_ids, row.unrelated_ids))
            - row.unrelated_reference_log_prob
            for row in (PAIRS[0], PAIRS[2])
        )
    total, count = KTO.step_terms(context(model), [PAIRS[0], PAIRS[2]])
    assert total == pytest.approx(expected, abs=FLOAT32_INSIDE) and count == 2
    with pytest.raises(ValueError, match="1 of 2 rows have none"):
        KTO.step_terms(context(model), PAIRS[:2])


@pytest.mark.parametrize("objective", ["dpo", "nca"])
def test_paired_objectives_refuse_rows_that_are_no_pairs(model: nn.Module, objective: str) -> None:
    turned = replace(PAIRS[0], labels=(False, True))
    for row in (*UNPAIRED, turned):
        with pytest.raises(ValueError, match=rf"{objective}: .* a pair.*of 2 rows 1 are not"):
            OBJECTIVES[objective].loss(context(model), [PAIRS[0], row])


def test_the_unrelated_response_is_the_next_rows_first() -> None:
    found = with_unrelated(PAIRS)
    assert [row.unrelated_ids for row in found] == [(12, 13, 4), (22, 4), (8, 9, 10, 4)]
    # What the reference says of it is another's to compute: forgotten, it shows.
    assert all(math.isnan(row.unrelated_reference_log_prob) for row in found)
    assert [replace(row, unrelated_ids=(), unrelated_reference_log_prob=0.0) for row in found] == [
        replace(row, unrelated_ids=(), unrelated_reference_log_prob=0.0) for row in PAIRS
    ]


def test_rows_of_the_same_prompt_are_no_unrelated_ones() -> None:
    def row(prompt: int, response: int) -> ImplicitExample:
        return ImplicitExample((prompt,), ((response, 4),), (True,), (0.0,))

    rows = [row(1, 10), row(1, 11), row(2, 12), row(2, 13), row(3, 14), row(1, 15)]
    # By hand: the first row behind, around the end, that has another prompt.
    assert [r.unrelated_ids[0] for r in with_unrelated(rows)] == [12, 12, 14, 14, 15, 12]
    with pytest.raises(ValueError, match="at least two different prompts"):
        with_unrelated([row(1, 10), row(1, 11)])
