"""A package that adds to the registries: docs/extending.md shows its files."""
