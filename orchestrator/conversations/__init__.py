"""Conversations: messages, chat templates, and the token ids between them."""
