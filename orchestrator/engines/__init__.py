"""What computes: chat text to token ids, Hugging Face policy and reward engines. No Ray here."""
