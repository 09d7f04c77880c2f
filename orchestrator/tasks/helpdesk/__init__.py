"""The embedded world: a help desk with an exact rubric (words, agents, rubric, preferences)."""
