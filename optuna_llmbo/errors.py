"""The errors that users of the package may want to tell apart, and warnings said once."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import logging
from typing import Any


# Under "optuna." so that Optuna's handler and verbosity apply.
_logger = logging.getLogger(f"optuna.{__name__}")


class InputError(ValueError):
    """A caller's mistake: the message says what was expected, what was got and what to do."""


class SurrogateFitError(RuntimeError):
    """The surrogate could not be fitted to the trials; the sampler falls back on it."""


def differences(there: Mapping[str, Any], ours: Mapping[str, Any], *, label: str) -> str:
    """In what two records differ, for a message: "seed (0, now 1), proxy (0.1, now 0.5)".

    Args:
        there: what was found.
        ours: what was expected.
        label: what `ours` is called, such as "now".

    Returns:
        Every entry that is not the same in both, by name; empty if there is none.
    """
    names = sorted(there.keys() | ours.keys())
    differ = [name for name in names if there.get(name) != ours.get(name)]
    return ", ".join(f"{n} ({there.get(n)!r}, {label} {ours.get(n)!r})" for n in differ)


@functools.lru_cache(maxsize=64)
def warn_once(message: str) -> None:
    """Log a warning, the same one once a process."""
    _logger.warning(message)
