"""Reward-guided search: one file a method, and the two engine interfaces that they ask."""
