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
MATMUL_REPEATS = 5


@dataclass(frozen=True)
class Setting:
    """A device and a model for it.

    Attributes:
        device: "cpu" or "cuda".
        separate_tokens: tokens per batch for unpacked forwards, tuned for speed.
        packed_pairs: pairs of a packed batch in scoring.
        matmul_size: n of the n x n matrix product that measures the device's FLOP/s.
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
    matmul_size: int

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
    "cpu": Setting(
        device="cpu", vocabulary=2048, hidden=256, intermediate=688, layers=6, heads=8,
        key_value_heads=4, dtype="float32", separate_tokens=4096, packed_pairs=16,
        matmul_size=1024,
    ),
    # The shape of Llama-3.2-1B.
    "cuda": Setting(
        device="cuda", vocabulary=128_256, hidden=2048, intermediate=8192, layers=16, heads=32,
        key_value_heads=8, dtype="bfloat16", separate_tokens=65_536, packed_pairs=32,
        matmul_size=8192,
    ),
}  # fmt: skip


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


def device_description(setting: Setting) -> str:
    """Return the GPU or the number of CPU threads, and the torch version."""
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


def matmul_flops_per_second(setting: Setting) -> float:
    """Return the FLOP/s of a product of two square matrices."""
    size = (setting.matmul_size, setting.matmul_size)
    first, second = (
        torch.randn(size, device=setting.device, dtype=setting.torch_dtype) for _ in "ab"
    )
    times = []
    for _ in range(MATMUL_REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        first @ second
        synchronize(setting.device)
        times.append(time.perf_counter() - start)
    return 2.0 * setting.matmul_size**3 / statistics.median(times[1:])


def synchronize(device: str) -> None:
    """Wait for the kernels of a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
