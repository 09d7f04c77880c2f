"""Conversations: chat templates, tokenizers, and the token ids of prompts and responses."""
