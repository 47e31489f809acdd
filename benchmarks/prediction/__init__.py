"""Benchmark of the surrogate's choices: which predict best from few observations."""
