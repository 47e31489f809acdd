"""The errors that users of the package may want to tell apart."""

from __future__ import annotations


class InputError(ValueError):
    """A caller's mistake: the message says what was expected, what was got and what to do."""


class SurrogateFitError(RuntimeError):
    """The surrogate could not be fitted to the trials; the sampler falls back on it."""
