"""Hyperparameter tuning: the search space, and the outcomes of trials. No Ray and no MLflow."""
