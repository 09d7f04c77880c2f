"""Reward maths: prefix scores of a response in one pass, log-probabilities, reference weights."""
