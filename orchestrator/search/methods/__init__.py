"""The search methods, a file each or one for a family; each registers itself."""
