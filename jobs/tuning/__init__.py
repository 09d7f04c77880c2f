"""Tuning by Ray Tune: the trials of a study, what they share, what is kept of them."""
