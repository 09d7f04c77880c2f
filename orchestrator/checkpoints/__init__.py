"""Checkpoints as files and as models: configs, weights, adapters, reward heads, sample models."""
