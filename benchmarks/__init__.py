"""Benchmarks of the project; run them from the root of the repository."""
