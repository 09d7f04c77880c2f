"""Training objectives: the registry, the rows as token ids, and one file for each objective."""
