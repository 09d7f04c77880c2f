"""Creates vLLM's engine with the settings that all vLLM engines share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch._dynamo.config

if TYPE_CHECKING:
    from vllm import LLM

CACHE_MIB = {"cpu": 1_024, "cuda": 8_192}  # KV cache size; sequences that exceed it are rejected
# vLLM fails at start unless this fraction of GPU memory is free; low because two engines share a
# GPU. kv_cache_memory_bytes sets the cache size.
GPU_MEMORY_UTILIZATION = 0.05
BLOCK = {"cpu": 32, "cuda": 16}  # tokens of a cache block, the minimum: only full blocks are reused
TOKENS_PER_BATCH = 8192  # per forward pass; longer prompts are prefilled in chunks


def language_model(
    checkpoint: str, device: str, cache_mib: int | None, **settings: object
) -> "LLM":
    """Create a vLLM engine in this process, with the settings that all engines share.

    Raises:
        ValueError: the installed vLLM is built for another kind of device.
    """
    # Callers set enforce_eager on a CPU, but vLLM still compiles some functions, which takes 17 s.
    if device == "cpu":
        torch._dynamo.config.disable = True
    from vllm import LLM
    from vllm.platforms import current_platform

    if current_platform.device_type != device:
        raise ValueError(
            f"the installed vLLM computes on {current_platform.device_type}, not on {device};"
            " install the build for that device, or set the device to the installed one"
        )
    return LLM(
        checkpoint,
        load_format="safetensors",
        use_tqdm_on_load=False,
        max_model_len=-1,  # the model's context, or what fits the cache
        kv_cache_memory_bytes=(cache_mib or CACHE_MIB[device]) * 2**20,
        gpu_memory_utilization=GPU_MEMORY_UTILIZATION,
        block_size=BLOCK[device],
        max_num_batched_tokens=TOKENS_PER_BATCH,
        disable_log_stats=True,
        **settings,
    )


@contextmanager
def aborted_on_error(model: "LLM") -> Iterator[None]:
    """Abort the requests that a block adds if it fails: vLLM's next run would return them too."""
    states = model.llm_engine.output_processor.request_states
    before = set(states)
    try:
        yield
    except Exception:
        model.llm_engine.abort_request([i for i in states if i not in before], internal=True)
        raise
