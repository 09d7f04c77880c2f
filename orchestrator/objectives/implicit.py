"""Implicit PRMs ("Free process rewards without process labels"): an ORM that is a log ratio.

A response's reward is r = beta * (log pi_theta(y | x) - log pi_ref(y | x)); trained on labels of
whole responses by any of four objectives, its partial sums are the values of prefixes. What the
reference says of a response is computed once, before training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orchestrator.objectives.ce import cross_entropy
from orchestrator.objectives.dpo import dpo
from orchestrator.objectives.kto import kto
from orchestrator.objectives.nca import nca
from orchestrator.rewards.log_ratio import token_log_probs

Ids = tuple[int, ...]
ImplicitObjective = Literal["dpo", "nca", "kto", "ce"]
PAIRED = ("dpo", "nca")


@dataclass(frozen=True)
class ImplicitExample:
    """Responses to one prompt with their labels; a preference pair is two with (True, False).

    Attributes:
        prompt_ids: as the policy reads it.
        responses: each ends with the first closing token, the one with which a policy ends.
        labels: True of a right (chosen) response.
        references: log pi_ref of each whole response, closing token included, in nats.
        unrelated_ids: a response to another prompt, for the KL term of KTO; () where none.
        unrelated_reference: log pi_ref of it behind this prompt, in nats.
    """

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    labels: tuple[bool, ...]
    references: tuple[float, ...]
    unrelated_ids: Ids = ()
    unrelated_reference: float = 0.0

    @property
    def size(self) -> int:
        """What a row counts for in a batch."""
        return 1

    @property
    def tokens(self) -> int:
        """Tokens of the longest text times the texts: each response is read behind the prompt."""
        longest = max(len(ids) for ids in (*self.responses, self.unrelated_ids))
        return len(self.responses) * (len(self.prompt_ids) + longest)


def implicit_loss(
    model: PreTrainedModel,
    rows: Sequence[ImplicitExample],
    objective: ImplicitObjective,
    beta: float,
    pad_id: int,
    kl: float = 0.0,
    kto_weights: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, int]:
    """Loss sum of some rows, and how many are right.

    Right are pairs with r_w > r_l (dpo, nca), or responses with r > 0 where the label is True and
    r < 0 where it is False (kto, ce). ``kl`` is the mean log ratio of unrelated responses in nats
    (``kl_terms``), not times beta; ``kto_weights`` are those of desirable and undesirable.

    Raises:
        ValueError: dpo or nca on a row that is no pair.
    """
    if objective in PAIRED:
        _assert_pairs(rows, objective)
    texts = [(row.prompt_ids, response) for row in rows for response in row.responses]
    found = token_log_probs(model, texts, pad_id).sum(1)  # (N,)
    references = [value for row in rows for value in row.references]
    rewards = beta * (found - torch.tensor(references, dtype=torch.float64).to(found))
    if objective in PAIRED:
        chosen, rejected = rewards[0::2], rewards[1::2]
        loss = (dpo if objective == "dpo" else nca)(chosen, rejected)
        return loss, int((chosen > rejected).sum())
    labels = torch.tensor([label for row in rows for label in row.labels], device=rewards.device)
    right = int((torch.where(labels, rewards, -rewards) > 0).sum())
    if objective == "kto":
        return kto(rewards, labels, beta * kl, *kto_weights), right
    return cross_entropy(rewards, labels), right


def loss_terms(row: ImplicitExample, objective: ImplicitObjective) -> int:
    """What the loss is a mean over: pairs (dpo, nca) or responses (kto, ce)."""
    return 1 if objective in PAIRED else len(row.responses)


@torch.no_grad()
def kl_terms(
    model: PreTrainedModel, rows: Sequence[ImplicitExample], pad_id: int
) -> tuple[float, int]:
    """Sum over the unrelated responses of log pi_theta - log pi_ref (nats), and their count.

    The mean over all workers, no less than 0, is KTO's estimate of KL(pi_theta || pi_ref).

    Raises:
        ValueError: a row has no unrelated response.
    """
    if bad := sum(not row.unrelated_ids for row in rows):
        # Not left out: under ZeRO every worker must make as many forwards as the others.
        raise ValueError(f"kto's KL term needs an unrelated response; {bad} rows have none")
    texts = [(row.prompt_ids, row.unrelated_ids) for row in rows]
    found = token_log_probs(model, texts, pad_id).double().sum()
    return float(found) - sum(row.unrelated_reference for row in rows), len(rows)


def with_unrelated(rows: Sequence[ImplicitExample]) -> list[ImplicitExample]:
    """The rows with an unrelated response each: the first response of the next row.

    In the order of the data set, its end joined to its beginning, so that nothing depends on
    batches; rows of the same prompt are passed over. The reference's side is still to be computed
    and NaN until then.

    Raises:
        ValueError: all rows have the same prompt.
    """
    if len({row.prompt_ids for row in rows}) < 2:
        raise ValueError("KTO's KL term needs rows of at least two different prompts")
    found: list[ImplicitExample] = []
    last, follower = rows[0], next(row for row in rows if row.prompt_ids != rows[0].prompt_ids)
    for row in reversed(rows):
        if row.prompt_ids != last.prompt_ids:
            follower = last
        unrelated = follower.responses[0]
        found.append(replace(row, unrelated_ids=unrelated, unrelated_reference=float("nan")))
        last = row
    return found[::-1]


def _assert_pairs(rows: Sequence[ImplicitExample], objective: str) -> None:
    bad = [row.labels for row in rows if row.labels != (True, False) or len(row.responses) != 2]
    if bad:
        raise ValueError(
            f"{objective} takes pairs, two responses with the labels (True, False); of {len(rows)}"
            f" rows {len(bad)} are none, the first with {bad[0]}"
        )
