"""Benchmarks that compare this project with baseline implementations in the same run."""
