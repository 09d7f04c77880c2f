"""What holds for every registered objective: its formula, its micro-batches, its traits."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import FLOAT32_INSIDE
from transformers import PreTrainedModel

from orchestrator.checkpoints.checkpoint import load_policy, load_reward_model
from orchestrator.config.load import ConfigError, load_config
from orchestrator.config.tree import Config
from orchestrator.objectives.examples import Ids, ImplicitExample, PairExample, TextExample
from orchestrator.objectives.objective import (
    OBJECTIVES,
    SUPPORTED,
    AnyObjective,
    LossContext,
    Objective,
    log_ratio_names,
    register,
    variant_objectives,
)
from orchestrator.registry import PluginError

BETA, MEAN, CLOSING = 0.3, 0.7, (4,)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# The loss of one term, as the papers print it. A term is a partial pair (two scores, a weight), a
# pair (two rewards), a response (reward, label, the step's KL term) or a token's log-probability.
ORACLES: dict[str, Callable[..., float] | None] = {
    "bradley_terry": lambda chosen, rejected, weight: -weight * math.log(sigma(chosen - rejected)),
    "dpo": lambda chosen, rejected: -math.log(sigma(chosen - rejected)),
    "nca": lambda chosen, rejected: (
        -math.log(sigma(chosen)) - 0.5 * math.log(sigma(-chosen)) - 0.5 * math.log(sigma(-rejected))
    ),
    "kto": lambda reward, label, kl: 1 - sigma(reward - kl if label else kl - reward),
    "ce": lambda reward, label, kl: -math.log(sigma(reward) if label else 1 - sigma(reward)),
    "language_modelling": lambda log_prob: -log_prob,
    "density_ratio": None,  # not trained
}
TRAINED = [name for name, objective in OBJECTIVES.items() if objective.is_trained()]
TEXTS = [TextExample((5, 6, 7), (8, 9, 10, 4)), TextExample((9,), (12, 4)), TextExample((8,), (4,))]
CUT_PAIRS = [
    PairExample((5, 6), (8, 9, 10), (11, 12), (1, 3), (1, 2), (1.0, 2.5)),
    PairExample((9,), (12, 13, 14, 15), (16,), (4,), (1,), (0.5,)),
    PairExample((7, 7), (8, 13), (16, 17, 18), (1, 2, 2), (1, 2, 3), (1.0, 0.25, 3.0)),
]
PAIRS = [
    ImplicitExample(
        (5, 6, 7), ((8, 9, 10, 4), (11, 4)), (True, False), (-17.0, -9.5), (12, 13, 4), -13.0
    ),
    ImplicitExample((9,), ((12, 4), (14, 15, 4)), (True, False), (-9.0, -13.0), (8, 4), -9.0),
    ImplicitExample((20, 21), ((22, 4), (23, 24, 4)), (True, False), (-8.0, -15.0), (9, 4), -8.5),
]
RESPONSES = [*PAIRS, ImplicitExample((5, 6), ((8, 9, 4),), (False,), (-12.0,), (7, 4), -7.0)]
ROWS: dict[Any, list[Any]] = {
    "demonstrations": TEXTS, "partial_pairs": CUT_PAIRS, "pairs": PAIRS, "responses": RESPONSES,
}  # fmt: skip


@pytest.fixture(scope="module")
def policy(word_policy: str) -> PreTrainedModel:
    return load_policy(word_policy, torch.float64).eval()


@pytest.fixture(scope="module")
def reward(word_reward: str) -> PreTrainedModel:
    return load_reward_model(word_reward, torch.float64).eval()


@pytest.fixture(params=TRAINED)
def trained(
    request: pytest.FixtureRequest, policy: PreTrainedModel, reward: PreTrainedModel
) -> tuple[type[AnyObjective], LossContext, list[Any]]:
    """Each trained objective with a context and rows of its kind."""
    objective = OBJECTIVES[request.param]
    model = reward if objective.takes_partial_pairs() else policy
    model.zero_grad()
    return (
        objective,
        LossContext(model, 0, CLOSING, beta=BETA, step_mean=MEAN),
        ROWS[objective.data_kind],
    )


def token_log_probs(model: PreTrainedModel, prompt: Ids, response: Ids) -> list[float]:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0]
    steps = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    return [float(steps[t, token]) for t, token in enumerate(response)]


def score(model: PreTrainedModel, prefix: Ids) -> float:
    """The reward model's score of a prefix that is closed and read alone."""
    with torch.no_grad():
        last = model.base_model(torch.tensor([prefix + CLOSING])).last_hidden_state[0, -1]
        return float(model.score(last))


def arguments(model: PreTrainedModel, row: Any, kind: Any) -> list[tuple[Any, ...]]:
    """The arguments of the oracle for each term of a row, computed one by one."""
    if isinstance(row, TextExample):
        return [(x,) for x in token_log_probs(model, row.prompt_ids, row.response_ids)]
    if isinstance(row, PairExample):
        return [
            (
                score(model, row.prompt_ids + row.chosen_ids[:c]),
                score(model, row.prompt_ids + row.rejected_ids[:r]),
                weight,
            )
            for c, r, weight in zip(row.chosen_cuts, row.rejected_cuts, row.weights, strict=True)
        ]
    rewards = [
        BETA * (sum(token_log_probs(model, row.prompt_ids, response)) - reference)
        for response, reference in zip(row.responses, row.reference_log_probs, strict=True)
    ]
    if kind == "pairs":
        return [tuple(rewards)]
    return [(r, label, BETA * MEAN) for r, label in zip(rewards, row.labels, strict=True)]


def test_every_objective_has_an_oracle() -> None:
    assert set(ORACLES) == set(OBJECTIVES)


def test_the_loss_is_the_sum_of_its_formula_over_the_terms(
    trained: tuple[type[AnyObjective], LossContext, list[Any]],
) -> None:
    objective, context, rows = trained
    oracle = ORACLES[objective.name]
    assert oracle is not None
    terms = [arguments(context.model, row, objective.data_kind) for row in rows]
    loss, right = objective.loss(context, rows)
    expected = sum(oracle(*term) for of_row in terms for term in of_row)
    assert float(loss.detach()) == pytest.approx(expected, rel=FLOAT32_INSIDE)
    assert [objective.num_loss_terms(row) for row in rows] == [len(of_row) for of_row in terms]
    assert 0 <= right <= sum(map(len, terms))


def test_micro_batches_add_up_in_loss_gradient_and_right_terms(
    trained: tuple[type[AnyObjective], LossContext, list[Any]],
) -> None:
    objective, context, rows = trained

    def gradients() -> list[torch.Tensor]:
        found = [p.grad.clone() for p in context.model.parameters() if p.grad is not None]
        context.model.zero_grad()
        return found

    loss, right = objective.loss(context, rows)
    loss.backward()
    together = gradients()
    parts = [objective.loss(context, some) for some in (rows[:1], rows[1:])]
    for part, _ in parts:
        part.backward()
    for one, other in zip(together, gradients(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=FLOAT32_INSIDE)
    assert sum(float(part.detach()) for part, _ in parts) == pytest.approx(float(loss.detach()))
    assert sum(count for _, count in parts) == right
    assert max(float(gradient.abs().max()) for gradient in together) > 1e-3


def test_what_needs_a_mean_over_the_step_adds_up_too(
    trained: tuple[type[AnyObjective], LossContext, list[Any]],
) -> None:
    objective, context, rows = trained
    if not objective.needs_step_mean:
        return
    total, count = objective.step_terms(context, rows)
    parts = [objective.step_terms(context, some) for some in (rows[:1], rows[1:])]
    assert sum(part for part, _ in parts) == pytest.approx(total)
    assert sum(n for _, n in parts) == count
    assert all(p.grad is None for p in context.model.parameters()), "it has no gradient"


def test_names_labels_and_formulas() -> None:
    assert all(objective.name == name for name, objective in OBJECTIVES.items())
    assert len({objective.label for objective in OBJECTIVES.values()}) == len(OBJECTIVES)
    assert all(objective.__doc__ for objective in OBJECTIVES.values())


def test_what_starts_from_the_orm_and_what_scores_as_a_log_ratio() -> None:
    from_orm = [name for name, objective in OBJECTIVES.items() if objective.starts_from == "orm"]
    assert from_orm == ["bradley_terry"]
    assert log_ratio_names() == ["ce", "density_ratio", "dpo", "kto", "nca"]
    assert [name for name in OBJECTIVES if not OBJECTIVES[name].is_trained()] == ["density_ratio"]


def test_the_config_knows_the_registry(tmp_path: Any) -> None:
    names = sorted(set(OBJECTIVES) - {"language_modelling"})
    assert list(variant_objectives()) == names
    schema = json.loads(json.dumps(Config.model_json_schema()))
    assert schema["$defs"]["Variant"]["properties"]["objective"]["enum"] == names
    for wrong in ("ppo", "language_modelling"):
        with pytest.raises(ConfigError) as error:
            load_config(None, [f"variants.v.objective={wrong}"])
        assert str(error.value) == (
            f"variants.v.objective = {wrong!r}: no such objective; valid: {', '.join(names)}"
        )


def test_a_name_is_defined_once() -> None:
    with pytest.raises(PluginError, match="objective 'dpo' is defined twice"):
        register(OBJECTIVES["dpo"])


@pytest.mark.parametrize(
    ("traits", "told"),
    [
        ({"data_kind": "tokens"}, "data_kind = 'tokens'; valid: 'demonstrations', 'partial_pairs'"),
        ({"data_kind": "pairs"}, "starts_from must be 'policy' and is_log_ratio True"),
        ({"data_kind": "partial_pairs", "starts_from": "orm"}, "is trained, but defines no loss"),
    ],
)
def test_traits_that_contradict_each_other_are_refused(traits: dict[str, Any], told: str) -> None:
    with pytest.raises(PluginError, match=told):
        register(type("Other", (Objective,), {"name": "other", "label": "other", **traits}))
    assert "other" not in OBJECTIVES and set(ROWS) == set(SUPPORTED) - {None}
