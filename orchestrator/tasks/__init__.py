"""Tasks: each loads its data, splits it, and grades responses."""
