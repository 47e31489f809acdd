"""Reads texts with a frozen language model and one learnable token; knows no study."""
