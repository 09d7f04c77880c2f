"""The metrics of responses; each registers itself."""
