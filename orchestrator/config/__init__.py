"""The typed config: its tree, loading with `base:` and overrides, checks before any start."""
