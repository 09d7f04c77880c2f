"""Reward-guided search: one file per method, and the two engine interfaces that methods use."""
