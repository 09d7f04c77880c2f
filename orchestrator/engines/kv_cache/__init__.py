"""KV cache: cache rows, prefix matches, and forwards that continue from a cached prefix."""
