"""Decoding with models of one's own: policy, scorer and search method put together, without Ray."""
