"""Judges: who says which of two responses, or of two prefixes, is better."""
