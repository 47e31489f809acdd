"""Errors that users may want to tell apart, and warnings that are logged once."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import functools
import logging
import numbers
from typing import Any


# Under "optuna." so that Optuna's handler and verbosity apply.
_logger = logging.getLogger(f"optuna.{__name__}")


class InputError(ValueError):
    """A caller's mistake; the message says what was expected, what was given and what to do."""


class SurrogateFitError(RuntimeError):
    """The surrogate could not be fitted to the trials; the sampler then uses its fallback."""


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise InputError if an argument is not one of the allowed values."""
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise InputError if an argument is not an integer or is less than `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}; got {value!r}.")


def check_type(name: str, value: object, kind: type, expected: str) -> None:
    """Raise InputError if an argument is not of a type, described by `expected`."""
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {expected}; got {value!r}.")


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Suggest the known name nearest to a wrong one, as " Did you mean 'rank'?".

    Without one near enough all known names are listed.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else f" Known are: {', '.join(names) or 'none'}."


def differences(there: Mapping[str, Any], ours: Mapping[str, Any], *, label: str) -> str:
    """Describe how two records differ, such as "seed (0, now 1), proxy (0.1, now 0.5)".

    Args:
        there: what was found.
        ours: what was expected.
        label: name of `ours` in the text, such as "now".

    Returns:
        Every entry that differs, by name; empty if there is none.
    """
    names = sorted(there.keys() | ours.keys())
    differ = [name for name in names if there.get(name) != ours.get(name)]
    return ", ".join(f"{n} ({there.get(n)!r}, {label} {ours.get(n)!r})" for n in differ)


@functools.lru_cache(maxsize=64)
def warn_once(message: str) -> None:
    """Log a warning, the same one only once per process."""
    _logger.warning(message)


@functools.lru_cache(maxsize=64)
def tell_once(message: str) -> None:
    """Log what a user may want to know, the same message only once per process."""
    _logger.info(message)
