"""Embed texts with a frozen language model and one learnable token; independent of studies."""
