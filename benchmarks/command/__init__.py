"""A search over a fine-tuning tool's own command, killed again and again: LLaMA-Factory."""
