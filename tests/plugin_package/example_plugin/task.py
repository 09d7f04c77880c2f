"""Counting: the response counts from one number to another; the task checks every number."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from orchestrator.evaluation.metric import Metric
from orchestrator.evaluation.metric import register as register_metric
from orchestrator.fields.types import Count
from orchestrator.randomness import generator
from orchestrator.records import Demonstration, PreferencePair, Prompt
from orchestrator.tasks.task import PAIR_SPLITS, Grades, Progress, Task, TaskData, register

LARGEST = 40
LENGTHS = range(8, 20)  # numbers of a response


@register
class Counting(Task):
    """Counting from one number to another; the rejected response has one wrong number."""

    task: Literal["counting"] = "counting"
    """Counting from one number to another."""
    demonstrations: Count = 2_000
    """Demonstrations that the policy imitates."""
    pairs: Count = 200
    """Preference pairs of each split."""
    test_prompts: Count = 20
    """Prompts of the search cells, and of the held-out pairs."""

    generated: ClassVar[tuple[str, ...]] = ("demonstrations", "pairs", "test_prompts")
    judged_by: ClassVar[str] = "right_numbers"
    grades_prefixes: ClassVar[bool] = True
    counted: ClassVar[tuple[str, ...]] = ("wrong_numbers",)
    faults: ClassVar[tuple[str, ...]] = ("wrong_numbers",)

    def read(self, seed: int, progress: Progress) -> TaskData:
        """Draw the splits; the pairs of a prompt are in one split."""
        sizes = dict.fromkeys(PAIR_SPLITS, self.pairs) | {"test": self.test_prompts}
        pairs = {
            name: [_pair(generator(seed, name, i), f"{name}-{i}") for i in range(size)]
            for name, size in sizes.items()
        }
        shown = [_prompt(generator(seed, "shown", i), f"s-{i}") for i in range(self.demonstrations)]
        demonstrations = [Demonstration(prompt, _answer(prompt)) for prompt in shown]
        return TaskData(demonstrations, [pair.prompt for pair in pairs["test"]], pairs)

    def grade(self, prompt: Prompt, response: str, finished: bool) -> Grades:
        """Return the right numbers before the first wrong one, and whether all is right."""
        words, right = response.split(), _answer(prompt).split()
        matches = [word == wanted for word, wanted in zip(words, right, strict=False)]
        leading = matches.index(False) if False in matches else len(matches)
        return {
            "right_numbers": float(leading),
            "wrong_numbers": float(len(words) - sum(matches)),
            "all_right": float(finished and words == right),
        }

    def vocabulary(self) -> tuple[str, ...]:
        """Return the numbers and the words of a prompt."""
        return ("count", "from", "to", *map(str, range(LARGEST + 1)))

    @property
    def longest_prompt(self) -> int:
        """Tokens of a prompt: five words and the template."""
        return 5 + 3

    @property
    def row_counts(self) -> Mapping[str, int]:
        """Rows of each split."""
        return {"policy": self.demonstrations, **dict.fromkeys(PAIR_SPLITS, self.pairs)}


@register_metric
class AllRight(Metric):
    """Whether the response counts to the end without a wrong number."""

    name = "all_right"
    label = "all right"
    order = 11
    kind = "rate"
    compared = True
    measures_correctness = True


def _prompt(rng: np.random.Generator, prompt_id: str) -> Prompt:
    length = int(rng.integers(LENGTHS.start, LENGTHS.stop))
    first = int(rng.integers(0, LARGEST - length))
    facts = {"first": first, "last": first + length}
    text = f"count from {first} to {first + length}"
    return Prompt(prompt_id, ({"role": "user", "content": text},), facts)


def _answer(prompt: Prompt) -> str:
    return " ".join(map(str, range(prompt.facts["first"], prompt.facts["last"] + 1)))


def _pair(rng: np.random.Generator, prompt_id: str) -> PreferencePair:
    prompt = _prompt(rng, prompt_id)
    words = _answer(prompt).split()
    index = int(rng.integers(len(words)))
    words[index] = str((int(words[index]) + int(rng.integers(1, LARGEST))) % (LARGEST + 1))
    return PreferencePair(f"{prompt_id}/0", prompt, _answer(prompt), " ".join(words))
