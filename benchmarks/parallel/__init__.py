"""Benchmark of studies with several workers: speed, and its cost in quality."""
