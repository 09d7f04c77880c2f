"""Define the random models, prompts and search methods of `jobs/bench.py search`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from jobs.benchmarks.setting import Setting
from orchestrator.checkpoints.checkpoint import save_checkpoint
from orchestrator.choices import Position
from orchestrator.conversations.tokenizers import SPECIAL, word_tokenizer
from orchestrator.engines.huggingface.policy import HuggingFacePolicy
from orchestrator.randomness import generator, stream_key
from orchestrator.scorers.sequence import SequenceScorer
from orchestrator.search.calibration import Calibration
from orchestrator.search.engines import Ids, SampleRequest, ScoreRequest
from orchestrator.search.method import AnySearchMethod
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch, TokenBeamSearch
from orchestrator.search.methods.best_of_n import BestOfN
from orchestrator.search.methods.cards import Cards
from orchestrator.search.problem import Problem

PROMPT_TOKENS, NEW_TOKENS = 60, 64  # tokens
CALIBRATION = 32  # prompts


# Ways to replay the recorded requests of a search.
Way = Literal["in batches", "at once", "by halves", "by quarters", "vLLM"]
REPLAYS: tuple[Way, ...] = ("in batches", "at once", "by halves", "by quarters", "vLLM")
NUM_BATCHES: dict[Way, int] = {"at once": 1, "by halves": 2, "by quarters": 4, "vLLM": 1}


@dataclass(frozen=True)
class Case:
    """A search method and its bounds.

    Attributes:
        method: the search method.
        floor: the least ratio of the time of the plain loop to that of the search actors.
        ceiling: the largest ratio of the time of the search actors to that of the bare engines;
            None: no bound.
        loop_prompts: number of prompts of the plain loop, which is slow.
        ways: how the requests are replayed on the bare engines; the fastest counts. Empty: the
            limit is the token counts divided by the best rates of the engines.
    """

    method: AnySearchMethod
    floor: float
    ceiling: float | None
    loop_prompts: int
    ways: tuple[Way, ...]


CASES = {
    "bon16": Case(BestOfN(n=16), 1.5, 1.25, 4, REPLAYS),
    "args30": Case(Args(weight=1.5, k=30), 50.0, 1.6, 1, ()),
    "tbs8x8": Case(TokenBeamSearch(beams=8, candidates=8), 40.0, 1.6, 1, ()),
    "cbs8x8x30": Case(ChunkBeamSearch(beams=8, candidates=8, chunk=30), 2.0, 1.25, 2, REPLAYS),
    "cards": Case(Cards(), 5.0, None, 32, ("in batches",)),
}


@dataclass(frozen=True)
class ModelSetup:
    """The folder of both models, and the processes that run them."""

    folder: str
    position: Position
    setting: Setting
    processes: int  # processes with both models
    threads: int  # torch threads of each
    stop_at_eos: bool = False  # whether an end token ends a response


def save_models(setting: Setting, folder: Path) -> None:
    """Save a random policy (untied) and a random reward model to the folders policy and reward."""
    tokenizer = word_tokenizer([f"w{i}" for i in range(setting.vocabulary - len(SPECIAL))])
    for name, kind in (("policy", LlamaForCausalLM), ("reward", LlamaForSequenceClassification)):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=setting.vocabulary,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
            **setting.architecture,
        )
        save_checkpoint(kind(config).to(setting.torch_dtype), tokenizer, folder / name)


def random_ids(setting: Setting, rows: int, tokens: int, *key: str | int) -> list[Ids]:
    """Return rows of random token ids, the same for the same ``key``."""
    ids = generator(0, "search", *key).integers(len(SPECIAL), setting.vocabulary, (rows, tokens))
    return [tuple(row) for row in ids.tolist()]


def random_problems(setting: Setting, count: int, repeat: int) -> list[Problem]:
    """Return prompts of random tokens, which differ between repeats."""
    rows = random_ids(setting, count, PROMPT_TOKENS, repeat)
    return [Problem(f"{repeat}-{i}", row, 0, NEW_TOKENS) for i, row in enumerate(rows)]


def calibration_of(setting: Setting, folder: Path, position: Position) -> Calibration:
    """Return the entropies and rewards of sampled responses to other prompts."""
    device, dtype = setting.device, setting.dtype
    policy = HuggingFacePolicy(
        str(folder / "policy"), device=device, stop_at_eos=False, dtype=dtype
    )
    reward = SequenceScorer(str(folder / "reward"), position, device=device, dtype=dtype)
    problems = random_problems(setting, CALIBRATION, -1)
    sampled = policy.sample(
        [
            SampleRequest(
                p.prompt_ids,
                (),
                (stream_key("calibration", p.prompt_id),),
                NEW_TOKENS,
                entropies=True,
            )
            for p in problems
        ]
    )
    continuations = [answer.continuations[0] for answer in sampled]
    entropies = [e for one in continuations for e in one.entropies]
    scored = reward.score(
        [
            ScoreRequest(p.prompt_ids, (), (y.token_ids,))
            for p, y in zip(problems, continuations, strict=True)
        ]
    )
    return Calibration(entropies, [one.scores[0] for one in scored])
