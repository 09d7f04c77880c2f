"""Scorers: one file a kind of reward model, all answering the same two questions."""
