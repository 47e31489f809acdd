"""What the project measures. Run from the root of the repository."""
