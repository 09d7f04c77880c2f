"""Judges, which decide which of two responses, or of two prefixes, is better."""
