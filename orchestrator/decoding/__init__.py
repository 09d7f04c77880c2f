"""Reward-guided decoding in one process: policy, scorer and search method, without Ray."""
