"""The four objectives of implicit PRMs against numbers worked out with the math module."""

import math

import pytest
import torch
from torch import Tensor

from orchestrator.objectives.definitions.ce import CrossEntropy
from orchestrator.objectives.definitions.dpo import DPO
from orchestrator.objectives.definitions.kto import KTO
from orchestrator.objectives.definitions.nca import NCA

TOLERANCE = 1e-12
BETA = 0.1  # no loss here depends on it: rewards are log ratios times beta
CHOSEN, REJECTED = [0.5, -1.25, 3.0], [-0.5, 2.0, 3.0]


class WeightedKTO(KTO):
    desirable_weight, undesirable_weight = 1.5, 0.75


def dpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    return DPO.pair_loss(chosen, rejected, BETA)


def nca(chosen: Tensor, rejected: Tensor) -> Tensor:
    return NCA.pair_loss(chosen, rejected, BETA)


def kto(rewards: Tensor, labels: Tensor, baseline: float) -> Tensor:
    return KTO.response_loss(rewards, labels, baseline)


def cross_entropy(rewards: Tensor, labels: Tensor) -> Tensor:
    return CrossEntropy.response_loss(rewards, labels, 0.0)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_dpo() -> None:
    chosen, rejected = tensor(CHOSEN), tensor(REJECTED)
    loss = dpo(chosen, rejected)
    # -log sigma(1) - log sigma(-3.25) - log sigma(0)
    assert float(loss.detach()) == pytest.approx(
        math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3.25)) + math.log(2), abs=TOLERANCE
    )
    loss.backward()
    slopes = [-sigma(-1), -sigma(3.25), -0.5]
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx(slopes, abs=TOLERANCE)
    assert rejected.grad.tolist() == pytest.approx([-x for x in slopes], abs=TOLERANCE)


def test_nca() -> None:
    chosen, rejected = tensor(CHOSEN), tensor(REJECTED)
    loss = nca(chosen, rejected)
    expected = sum(
        -math.log(sigma(w)) - 0.5 * math.log(sigma(-w)) - 0.5 * math.log(sigma(-lost))
        for w, lost in zip(CHOSEN, REJECTED, strict=True)
    )
    assert float(loss.detach()) == pytest.approx(expected, abs=TOLERANCE)
    loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    # d/dw: -sigma(-w) + sigma(w)/2, zero where sigma(w) = 2/3; d/dr_l: sigma(r_l)/2.
    assert chosen.grad.tolist() == pytest.approx(
        [-sigma(-w) + 0.5 * sigma(w) for w in CHOSEN], abs=TOLERANCE
    )
    assert rejected.grad.tolist() == pytest.approx(
        [0.5 * sigma(lost) for lost in REJECTED], abs=TOLERANCE
    )
    # The best reward of a chosen response is log 2, however bad the other.
    best = tensor([math.log(2)])
    nca(best, tensor([-3.0])).backward()
    assert best.grad is not None and best.grad.item() == pytest.approx(0, abs=TOLERANCE)


def test_kto() -> None:
    rewards = tensor([0.5, -1.25, 2.0])
    labels = torch.tensor([True, False, False])
    loss = WeightedKTO.response_loss(rewards, labels, 0.3)
    expected = (
        1.5 * (1 - sigma(0.5 - 0.3))
        + 0.75 * (1 - sigma(0.3 + 1.25))
        + 0.75 * (1 - sigma(0.3 - 2.0))
    )
    assert float(loss.detach()) == pytest.approx(expected, abs=TOLERANCE)
    loss.backward()
    assert rewards.grad is not None
    assert rewards.grad.tolist() == pytest.approx(
        [
            -1.5 * sigma(0.2) * sigma(-0.2),
            0.75 * sigma(1.55) * sigma(-1.55),
            0.75 * sigma(1.7) * sigma(-1.7),
        ],
        abs=TOLERANCE,
    )


def test_a_negative_estimate_of_a_kl_counts_as_none() -> None:
    rewards, labels = tensor([0.5, -1.25]), torch.tensor([True, False])
    assert torch.equal(kto(rewards, labels, -4.0), kto(rewards, labels, 0.0))
    assert float(kto(rewards, labels, 0.0).detach()) == pytest.approx(
        (1 - sigma(0.5)) + (1 - sigma(1.25)), abs=TOLERANCE
    )


def test_cross_entropy() -> None:
    rewards, labels = tensor([0.5, -1.25, 2.0]), torch.tensor([True, False, False])
    loss = cross_entropy(rewards, labels)
    expected = -math.log(sigma(0.5)) - math.log(1 - sigma(-1.25)) - math.log(1 - sigma(2.0))
    assert float(loss.detach()) == pytest.approx(expected, abs=TOLERANCE)
    loss.backward()
    assert rewards.grad is not None
    assert rewards.grad.tolist() == pytest.approx(
        [sigma(0.5) - 1, sigma(-1.25), sigma(2.0)], abs=TOLERANCE
    )


def test_rewards_far_from_zero_give_finite_losses_and_gradients() -> None:
    """A log ratio of a long response may be hundreds of nats."""
    far, labels = tensor([-800.0, 800.0]), torch.tensor([True, False])
    opposite = tensor([800.0, -800.0])
    loss = dpo(far, opposite) + nca(far, opposite) + cross_entropy(far, labels)
    loss = loss + kto(far, labels, 0.1)
    # dpo: 1600 + 0. nca, first pair: 800 + 0 + 400; second: 0 + 400 + 0. ce: 800 + 800. kto: 1 + 1.
    assert float(loss.detach()) == pytest.approx(1600 + 1600 + 1600 + 2, abs=1e-9)
    loss.backward()
    assert far.grad is not None and torch.isfinite(far.grad).all()
