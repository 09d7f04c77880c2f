"""vLLM in a process of its own: the policy engine, and the process that scorers share."""
