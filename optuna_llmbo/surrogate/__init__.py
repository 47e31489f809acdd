"""The Gaussian process: its targets, kernel, fit and acquisition functions."""
