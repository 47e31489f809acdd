"""Which choices of the surrogate predict best from few observations."""
