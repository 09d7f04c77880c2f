"""Estimate the FLOPs of a response: 2N for each token that a model computes.

This is the standard estimate. N is the number of parameters in a token's matrix products
(``checkpoints/parameters.py``): the embedding look-up is excluded, the language-model head is
included. Each parameter is one multiplication and one addition. Attention over earlier tokens,
norms and sampling are not included. The module does not read checkpoints.
"""

from dataclasses import dataclass

from orchestrator.records import Cost

FLOPS = ("policy_flops", "reward_flops", "flops")


@dataclass(frozen=True)
class Sizes:
    """N of the policy and of the scorer (0 without one), per counted token."""

    policy: float
    reward: float = 0.0

    def flops(self, cost: Cost) -> dict[str, float]:
        """Return the FLOPs of the policy, of the scorer and of both, by the names in ``FLOPS``."""
        policy = 2.0 * self.policy * cost.policy_tokens_computed
        reward = 2.0 * self.reward * cost.reward_tokens_computed
        return dict(zip(FLOPS, (policy, reward, policy + reward), strict=True))
