"""Stages: their keys, the store of their outputs, and their progress."""
