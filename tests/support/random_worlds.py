"""Random tabular policies and rewards, whose values are keyed draws."""

from orchestrator.randomness import generator
from orchestrator.search.engines import Ids
from orchestrator.search.tabular import TabularPolicy, TabularReward


def random_policy(seed: int, vocabulary: int, spread: float = 1.5) -> TabularPolicy:
    """Return a policy whose logits are keyed normal draws; the last id is the end token."""

    def logits(prompt_ids: Ids, response_ids: Ids) -> list[float]:
        rng = generator(seed, "logits", str(prompt_ids), str(response_ids))
        return [float(value) for value in spread * rng.normal(size=vocabulary)]

    return TabularPolicy(logits, end_id=vocabulary - 1)


def random_reward(seed: int) -> TabularReward:
    """Return a reward whose values are keyed normal draws."""

    def value(prompt_ids: Ids, response_ids: Ids) -> float:
        return float(generator(seed, "reward", str(prompt_ids), str(response_ids)).normal())

    return TabularReward(value)
