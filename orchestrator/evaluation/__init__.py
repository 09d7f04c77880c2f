"""Metrics and their statistics: agreement rates, prefix accuracy, diversity, win-tie, intervals."""
