"""Benchmarks of reward models: prefixes in one pass, training on them, the scoring pipeline."""
