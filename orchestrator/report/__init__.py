"""Render the summary of a sweep: tables for the terminal, figures, and a self-contained HTML page.

All functions are pure functions of the summary's JSON; no Ray, MLflow or torch.
"""
