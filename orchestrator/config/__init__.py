"""The typed config: its tree, loading with `base:` and overrides, the check before anything starts."""
