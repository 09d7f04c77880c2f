"""The search methods, one file per method or family; each registers itself."""
