"""The families of objectives on log ratios ("Free process rewards without process labels").

The reward of a response is r = beta * (log pi_theta(y | x) - log pi_ref(y | x)). A model trained on
the rewards of full responses is an implicit PRM: partial sums of r score prefixes. The
reference policy's log-probabilities are computed once, before the training.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from orchestrator.objectives.examples import ImplicitExample
from orchestrator.objectives.objective import DataKind, LossContext, Objective

if TYPE_CHECKING:
    from torch import Tensor


class LogRatioObjective(Objective[ImplicitExample]):
    """Base class of both families: computes rewards, and the KL term as mean over a step."""

    is_log_ratio: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ("beta",)

    @classmethod
    def rewards(cls, context: LossContext, rows: Sequence[ImplicitExample]) -> "Tensor":
        """Return the reward of each response of all rows (N,), with gradient."""
        import torch

        from orchestrator.rewards.log_ratio import token_log_probs

        texts = [(row.prompt_ids, response) for row in rows for response in row.responses]
        log_probs = token_log_probs(context.model, texts, context.pad_id).sum(1)  # (N,)
        values = [value for row in rows for value in row.reference_log_probs]
        reference = torch.tensor(values, dtype=torch.float64).to(log_probs)
        return context.beta * (log_probs - reference)

    @classmethod
    def step_terms(cls, context: LossContext, rows: Sequence[ImplicitExample]) -> tuple[float, int]:
        """Return the sum of log pi_theta - log pi_ref (nats) of unrelated responses, and the count.

        Their mean estimates KL(pi_theta || pi_ref).

        Raises:
            ValueError: a row has no unrelated response.
        """
        import torch

        from orchestrator.rewards.log_ratio import token_log_probs

        if missing := sum(not row.unrelated_ids for row in rows):
            # They are not skipped: under ZeRO all workers must make the same number of forwards.
            raise ValueError(
                f"{cls.name}: the KL term needs an unrelated response in every row; {missing} of"
                f" {len(rows)} rows have none"
            )
        texts = [(row.prompt_ids, row.unrelated_ids) for row in rows]
        with torch.no_grad():
            log_probs = token_log_probs(context.model, texts, context.pad_id).double().sum()
        return float(log_probs) - sum(row.unrelated_reference_log_prob for row in rows), len(rows)


class PairObjective(LogRatioObjective):
    """An objective on the rewards of preference pairs; a subclass defines ``pair_loss``."""

    data_kind: ClassVar[DataKind | None] = "pairs"

    @classmethod
    def pair_loss(cls, chosen: "Tensor", rejected: "Tensor", beta: float) -> "Tensor":
        """Return the sum of the loss over N pairs.

        Args:
            chosen: rewards of the chosen responses (N,), log ratios times ``beta``.
            rejected: rewards of the rejected responses (N,).
            beta: for losses that need the log ratios, which are rewards / beta.
        """
        raise NotImplementedError

    @classmethod
    def loss(cls, context: LossContext, rows: Sequence[ImplicitExample]) -> "tuple[Tensor, int]":
        """Return the loss sum of some pairs, and how many have r_w > r_l.

        Raises:
            ValueError: a row is not a pair.
        """
        _check_pairs(cls.name, rows)
        rewards = cls.rewards(context, rows)
        chosen, rejected = rewards[0::2], rewards[1::2]
        loss = cls.pair_loss(chosen, rejected, context.beta)
        return loss, int((chosen > rejected).sum())


class ResponseObjective(LogRatioObjective):
    """An objective on the rewards of labelled responses; a subclass defines ``response_loss``."""

    data_kind: ClassVar[DataKind | None] = "responses"

    @classmethod
    def response_loss(cls, rewards: "Tensor", labels: "Tensor", baseline: float) -> "Tensor":
        """Return the sum of the loss over N responses.

        Args:
            rewards: rewards of the responses (N,), log ratios times beta.
            labels: whether each response is right (N,), bool.
            baseline: the step's mean (``step_terms``) times beta; 0 without ``needs_step_mean``.
        """
        raise NotImplementedError

    @classmethod
    def loss(cls, context: LossContext, rows: Sequence[ImplicitExample]) -> "tuple[Tensor, int]":
        """Return the loss sum of some responses, and how many rewards have their label's sign."""
        import torch

        rewards = cls.rewards(context, rows)
        labels = [label for row in rows for label in row.labels]
        labelled = torch.tensor(labels, device=rewards.device)
        right = int((torch.where(labelled, rewards, -rewards) > 0).sum())
        return cls.response_loss(rewards, labelled, context.beta * context.step_mean), right

    @classmethod
    def num_loss_terms(cls, row: ImplicitExample) -> int:
        """Return the number of responses."""
        return len(row.responses)


def _check_pairs(name: str, rows: Sequence[ImplicitExample]) -> None:
    bad = [row.labels for row in rows if row.labels != (True, False) or len(row.responses) != 2]
    if bad:
        raise ValueError(
            f"{name}: a row must be a pair, two responses with the labels (True, False); of"
            f" {len(rows)} rows {len(bad)} are not, the first with the labels {bad[0]}"
        )
