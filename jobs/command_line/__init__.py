"""What the entry points share: options, early checks, and quiet libraries."""
