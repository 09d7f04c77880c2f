"""A stage's identity, its store on disk, and resume: what is done is not done again."""
