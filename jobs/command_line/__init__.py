"""What the entry points share: options, their first checks, and output of libraries."""
