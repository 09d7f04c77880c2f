"""The noisy annotator: labels a preference pair of two responses by the rubric, with noise.

The better one by the rubric is preferred with probability sigma(sharpness x difference).
"""

from scipy.special import expit

from orchestrator.randomness import generator
from orchestrator.records import PreferencePair, Prompt
from orchestrator.tasks.helpdesk.rubric import grade


def label_pair(
    prompt: Prompt,
    first: str,
    second: str,
    finished: tuple[bool, bool],
    sharpness: float,
    seed: int,
) -> PreferencePair | None:
    """The preference pair of two sampled responses, or None where both are the same text."""
    if first == second:
        return None
    gap = (
        grade(prompt.facts, first, finished[0]).value
        - grade(prompt.facts, second, finished[1]).value
    )
    rng = generator(seed, "preference", prompt.prompt_id, first, second)
    first_wins = rng.random() < float(expit(sharpness * gap))
    chosen, rejected = (first, second) if first_wins else (second, first)
    pair_id = f"{prompt.prompt_id}/{rng.integers(2**32):08x}"
    return PreferencePair(pair_id, prompt, chosen, rejected)
