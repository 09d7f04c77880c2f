"""What stages may cost, in seconds on two cores, for the dry run; nothing else reads it."""

from orchestrator.config.decoding import BeamConfig
from orchestrator.config.sections import HelpdeskData
from orchestrator.config.tree import Config

# Measured with the embedded models (0.87M parameters); an estimate only.
PER_TRAINED_PAIR = 0.0045
PER_DEMONSTRATION_STEP = 0.1
PER_SAMPLE = 0.0025
PER_SCORED_RESPONSE = 0.002
GROUP_START = 30.0
PIPELINE_START = 25.0
REAL_PAIRS = 1_000  # of a split of a file that is not read yet


def pair_count(config: Config, split: str | None = None) -> int:
    """Preference pairs of a split, or of all."""
    data = config.data
    if not isinstance(data, HelpdeskData):
        return REAL_PAIRS
    counts = {"orm": data.orm_pairs, "reference": data.reference_pairs, "prm": data.prm_pairs}
    return counts[split] if split else sum(counts.values())


def seconds_per_prompt(config: Config, method: str) -> float:
    """From the tokens a method asks for, at the embedded models' rates."""
    section = getattr(config.search, method, None)
    length = config.decoding.max_new_tokens / 2
    if isinstance(section, BeamConfig):
        return (
            section.beams * section.candidates * (length / section.chunk) * PER_SCORED_RESPONSE / 4
        )
    if method == "args":
        return length * PER_SCORED_RESPONSE * 2
    return 0.03
