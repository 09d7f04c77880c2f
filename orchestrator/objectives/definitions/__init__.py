"""The project's own training objectives, one file each."""
