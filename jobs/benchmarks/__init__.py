"""Benchmarks: ratios between this project and the usual way, measured in one run."""
