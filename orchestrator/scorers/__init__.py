"""Scorers: reward models of all kinds behind one interface, which scores prefixes and requests."""
