"""Configurations as points in the unit cube, as numbers and as text."""
