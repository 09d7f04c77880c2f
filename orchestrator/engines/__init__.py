"""What computes: chat text to token ids, the Hugging Face policy and reward engines. No Ray here."""
