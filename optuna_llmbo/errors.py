"""The errors that users of the package may want to tell apart, and warnings said once."""

from __future__ import annotations

import functools
import logging


# Under "optuna." so that Optuna's handler and verbosity apply.
_logger = logging.getLogger(f"optuna.{__name__}")


class InputError(ValueError):
    """A caller's mistake: the message says what was expected, what was got and what to do."""


class SurrogateFitError(RuntimeError):
    """The surrogate could not be fitted to the trials; the sampler falls back on it."""


@functools.lru_cache(maxsize=64)
def warn_once(message: str) -> None:
    """Log a warning, the same one once a process."""
    _logger.warning(message)
