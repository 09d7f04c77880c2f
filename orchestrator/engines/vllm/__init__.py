"""vLLM in a separate process: the policy engine, and the process wrapper that scorers share."""
