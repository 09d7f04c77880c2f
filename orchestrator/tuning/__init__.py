"""What a tuning searches, and what is kept of its trials. Knows no Ray and no MLflow."""
