"""The setting of `jobs/bench.py search`: random models, prompts, and the methods' parameters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from orchestrator.search.method import SearchMethod
from orchestrator.search.methods.args import Args
from orchestrator.search.methods.beam import ChunkBeamSearch, TokenBeamSearch
from orchestrator.search.methods.best_of_n import BestOfN
from orchestrator.search.methods.cards import Cards
from orchestrator.search.problem import Problem

PROMPT, NEW = 60, 64  # tokens
CALIBRATION = 32  # prompts


Way = Literal["in batches", "at once", "by halves", "by quarters", "vLLM", "at the best rates"]
# Of pieces that are all known in advance.
KNOWN: tuple[Way, ...] = ("in batches", "at once", "by halves", "by quarters", "vLLM")
PARTS: dict[Way, int] = {"at once": 1, "by halves": 2, "by quarters": 4, "vLLM": 1}


@dataclass(frozen=True)
class Case:
    """A search method, and the least ratio to the loop.

    ``limit`` is what it may take of the bare engines' time. The slow loop takes ``loop_prompts``.
    ``ways``: how the bare engines are measured; the fastest counts.
    """

    method: SearchMethod[Any]
    floor: float
    limit: float | None
    loop_prompts: int
    ways: tuple[Way, ...]


CASES = {
    "bon16": Case(BestOfN(n=16), 1.5, 1.25, 4, KNOWN),
    "args30": Case(Args(weight=1.5, k=30), 50.0, 1.6, 1, ("at the best rates",)),
    "tbs8x8": Case(TokenBeamSearch(beams=8, candidates=8), 40.0, 1.6, 1, ("at the best rates",)),
    "cbs8x8x30": Case(ChunkBeamSearch(beams=8, candidates=8, chunk=30), 2.0, 1.25, 2, KNOWN),
    "cards": Case(Cards(), 5.0, None, 32, ("in batches",)),
}


@dataclass(frozen=True)
class Place:
    """Where the models are, and how they are asked."""

    folder: str
    position: Position
    setting: Setting
    processes: int  # of the policy, and of the reward model
    threads: int  # of each
    ends: bool = False  # whether the end token ends a response


def save_models(setting: Setting, folder: Path) -> None:
    """A random policy (untied) and a random reward model, in folders of their names."""
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
    """Random words, the same for the same ``key``."""
    ids = generator(0, "search", *key).integers(len(SPECIAL), setting.vocabulary, (rows, tokens))
    return [tuple(row) for row in ids.tolist()]


def problems(setting: Setting, count: int, repeat: int) -> list[Problem]:
    """Prompts of random words; no two repeats share any."""
    rows = random_ids(setting, count, PROMPT, repeat)
    return [Problem(f"{repeat}-{i}", row, 0, NEW) for i, row in enumerate(rows)]


def calibration_of(setting: Setting, folder: Path, position: Position) -> Calibration:
    """Entropies and rewards of whole responses to other prompts."""
    device, dtype = setting.device, setting.dtype
    policy = HuggingFacePolicy(str(folder / "policy"), device=device, ends=False, dtype=dtype)
    reward = SequenceScorer(str(folder / "reward"), position, device=device, dtype=dtype)
    asked = problems(setting, CALIBRATION, -1)
    drawn = policy.sample(
        [
            SampleRequest(
                p.prompt_ids, (), (stream_key("calibration", p.prompt_id),), NEW, entropies=True
            )
            for p in asked
        ]
    )
    texts = [answer.continuations[0] for answer in drawn]
    entropies = [e for text in texts for e in text.entropies]
    scored = reward.score(
        [ScoreRequest(p.prompt_ids, (), (y.token_ids,)) for p, y in zip(asked, texts, strict=True)]
    )
    return Calibration(entropies, [one.scores[0] for one in scored])
