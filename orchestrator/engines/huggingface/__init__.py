"""The policy engine on Hugging Face transformers, with continuous batching."""
