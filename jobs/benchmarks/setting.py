"""Define the device and the random model of the benchmarks, and count FLOPs of forward passes."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from orchestrator.choices import Dtype
from orchestrator.rewards.packed import PackedRow

PAD = 0
MATRIX_REPEATS = 5


@dataclass(frozen=True)
class Setting:
    """A device and a model for it.

    Attributes:
        device: "cpu" or "cuda".
        separate_tokens: tokens of a batch of separate forwards, in their best batch size.
        packed_pairs: pairs of a packed batch in scoring.
        matrix: n of the n x n matrix product that measures the device's FLOP/s.
    """

    device: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    dtype: Dtype
    separate_tokens: int
    packed_pairs: int
    matrix: int

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the model."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def architecture(self) -> dict[str, int]:
        """The sizes of the model as arguments of LlamaConfig."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
        }


SETTINGS = {
    # 4.9M parameters; larger batches of separate forwards were slower.
    "cpu": Setting("cpu", 2048, 256, 688, 6, 8, 4, "float32", 4096, 16, 1024),
    # The shape of Llama-3.2-1B.
    "cuda": Setting("cuda", 128_256, 2048, 8192, 16, 32, 8, "bfloat16", 65_536, 32, 8192),
}


@lru_cache(maxsize=1)
def random_model(setting: Setting) -> PreTrainedModel:
    """Return a reward model with random weights, in evaluation mode."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=setting.vocabulary, num_labels=1, pad_token_id=PAD, **setting.architecture
    )
    with torch.device(setting.device):
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation="sdpa", dtype=setting.torch_dtype
        )
    return model.eval()


def name_of(setting: Setting) -> str:
    """Return the name of the device."""
    if setting.device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def forward_flops(setting: Setting, rows: Sequence[PackedRow]) -> float:
    """Return the FLOPs of a forward pass of packed rows: matrix products and attention.

    A multiplication with an addition counts as two; attention counts only unmasked pairs.
    """
    head = setting.hidden // setting.heads
    projections = setting.hidden * head * 2 * (setting.heads + setting.key_value_heads)
    weights = setting.layers * (projections + 3 * setting.hidden * setting.intermediate)
    tokens = sum(row.tokens for row in rows)
    pairs = sum(_attended(row) for row in rows)
    return 2.0 * weights * tokens + 4.0 * setting.layers * setting.hidden * pairs


def _attended(row: PackedRow) -> int:
    """Return the number of unmasked (query, key) pairs of a row; its prompt counts once."""
    prompt = len(row.prompt_ids)
    pairs = prompt * (prompt + 1) // 2
    for response in row.responses:
        pairs += len(response) * prompt + len(response) * (len(response) + 1) // 2
    for branch in row.branches:
        tokens = len(branch.token_ids)
        pairs += tokens * (prompt + branch.attach) + tokens * (tokens + 1) // 2
    return pairs


def matrix_flops(setting: Setting) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    size = (setting.matrix, setting.matrix)
    first, second = (
        torch.randn(size, device=setting.device, dtype=setting.torch_dtype) for _ in "ab"
    )
    times = []
    for _ in range(MATRIX_REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        first @ second
        finish(setting.device)
        times.append(time.perf_counter() - start)
    return 2.0 * setting.matrix**3 / statistics.median(times[1:])


def finish(device: str) -> None:
    """Wait for the kernels of a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
