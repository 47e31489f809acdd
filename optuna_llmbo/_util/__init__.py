"""Helpers that are independent of the method."""
