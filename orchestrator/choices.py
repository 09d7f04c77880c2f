"""Literal types shared by config, command lines and library; imports nothing heavy."""

from typing import Literal

Aggregation = Literal["last", "min", "mean", "sum", "product"]
Position = Literal["closed", "open"]  # where a prefix is scored
FinishedPosition = Literal["template", "position"]  # where search scores a finished response
Engine = Literal["transformers", "vllm"]
EngineChoice = Literal["auto", "transformers", "vllm"]
Dtype = Literal["float32", "float64", "bfloat16"]  # data types of weights
BRANCH_MEMORY_MIB = 256  # default memory for the branches of one pass
