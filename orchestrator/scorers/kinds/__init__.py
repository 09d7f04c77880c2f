"""The built-in scorer kinds, one module each."""
