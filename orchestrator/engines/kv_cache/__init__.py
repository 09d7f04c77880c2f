"""KV cache: cache rows, prefix matches, and forward passes that continue a cached prefix."""
