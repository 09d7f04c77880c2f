"""Training objectives: the base class, the registry, and one file for each objective."""
