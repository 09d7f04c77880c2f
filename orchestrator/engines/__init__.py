"""Engines: what samples and scores. The policy on transformers or vLLM, and their KV cache."""
