"""Benchmark of samplers: the same tasks, budgets and seeds for each."""
