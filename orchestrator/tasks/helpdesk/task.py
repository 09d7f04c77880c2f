"""The help desk as a task: a seeded generator makes all data, and the rubric grades responses."""

from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Literal

from orchestrator.fields.types import Count, Positive
from orchestrator.records import PreferencePair, Prompt
from orchestrator.tasks.helpdesk.extent import (
    DIFFERENT_PROMPTS,
    LONGEST_PROMPT,
    TEMPLATE_TOKENS,
    prompt_counts,
)
from orchestrator.tasks.helpdesk.words import vocabulary
from orchestrator.tasks.task import PAIR_SPLITS, Grades, Progress, Task, TaskData, register

MAX_PROMPTS = DIFFERENT_PROMPTS // 10  # beyond that, most draws repeat a prompt


@register
class Helpdesk(Task):
    """The embedded world: prompts made by a seeded generator, disjoint between the splits."""

    task: Literal["helpdesk"] = "helpdesk"
    """The embedded world ([world.md](world.md))."""
    demonstrations: Count = 20_000
    """Demonstrations that the policy imitates."""
    orm_pairs: Count = 5_000
    """Preference pairs of the ORM."""
    reference_pairs: Count = 8_000
    """Preference pairs of the reference reward model."""
    prm_pairs: Count = 4_000
    """Preference pairs from which partial pairs are made."""
    test_prompts: Count = 300
    """Prompts of the search cells. All splits together may take at most a tenth of the 23,040,000
    different prompts of the world."""
    preference_sharpness: Positive = 1.5
    """Inverse noise of the preference labels: the response with the higher rubric score is chosen
    with probability sigma(this value x score difference)."""

    generated = ("demonstrations", "orm_pairs", "reference_pairs", "prm_pairs", "test_prompts")
    samples_pairs = True
    judged_by = "rubric"
    grades_prefixes = True
    faults = ("wrong_verbs", "wrong_parts", "malformed_steps", "repeated_steps", "rude_remarks")
    counted = ("fitting_steps", *faults)

    def read(self, seed: int, progress: Progress) -> TaskData:
        """Make prompts and demonstrations; pairs are sampled later, for ``prompts``."""
        from orchestrator.tasks.helpdesk import agents

        sizes = self._sizes()
        prompts = agents.prompts(sum(sizes), seed)
        splits = [prompts[a:b] for a, b in pairwise([0, *accumulate(sizes)])]
        demonstrations = []
        for prompt in splits[0]:
            demonstrations.append(agents.demonstration(prompt, seed))
            progress(len(demonstrations), len(splits[0]))
        pair_prompts = dict(zip(PAIR_SPLITS, splits[1:-1], strict=True))
        return TaskData(demonstrations, splits[-1], prompts=pair_prompts)

    def grade(self, prompt: Prompt, response: str, finished: bool) -> Grades:
        """Return ``rubric`` in points, ``resolved`` (0 or 1), and counts of steps and faults."""
        from orchestrator.tasks.helpdesk.rubric import grade

        verdict = grade(prompt.facts, response, finished)
        return {
            "rubric": verdict.value,
            "resolved": float(verdict.resolved),
            "fitting_steps": float(verdict.fitting),
            "wrong_verbs": float(verdict.wrong_verbs),
            "wrong_parts": float(verdict.wrong_parts),
            "malformed_steps": float(verdict.malformed),
            "repeated_steps": float(verdict.repeats),
            "rude_remarks": float(verdict.rude),
        }

    def prefer(
        self, prompt: Prompt, responses: tuple[str, str], finished: tuple[bool, bool], seed: int
    ) -> PreferencePair | None:
        """Return the noisy annotator's pair; None if both responses are the same text."""
        from orchestrator.tasks.helpdesk.preferences import label_pair

        return label_pair(prompt, *responses, finished, self.preference_sharpness, seed)

    def vocabulary(self) -> tuple[str, ...]:
        """Return the words of the world; each is a token."""
        return vocabulary()

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt with its template."""
        return LONGEST_PROMPT + TEMPLATE_TOKENS

    @property
    def row_counts(self) -> Mapping[str, int]:
        """Rows of each split."""
        return {
            "policy": self.demonstrations, "orm": self.orm_pairs,
            "reference": self.reference_pairs, "prm": self.prm_pairs,
        }  # fmt: skip

    def contradictions(self) -> Iterator[str]:
        """Yield an error if the splits need more prompts than the world has."""
        counts = {name: int(getattr(self, name)) for name in self.generated}
        wanted = sum(self._sizes())
        if wanted > MAX_PROMPTS:
            largest = max(counts, key=lambda name: counts[name])
            yield (
                f"data.{largest} = {counts[largest]}: all splits together need {wanted:,} prompts,"
                f" more than a tenth of the world's {DIFFERENT_PROMPTS:,} different prompts; valid:"
                f" at most {MAX_PROMPTS:,} prompts in all splits"
            )

    def _sizes(self) -> list[int]:
        pairs = (self.orm_pairs, self.reference_pairs, self.prm_pairs)
        return prompt_counts(self.demonstrations, pairs, self.test_prompts)
