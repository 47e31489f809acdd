"""TRL, which is installed where it is used."""

from __future__ import annotations

from typing import Any

from optuna_llmbo.errors import InputError


def trl() -> Any:
    """The package TRL.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import trl
    except ImportError as error:
        raise InputError(
            f"TRL is needed and cannot be imported ({error}): pip install optuna-llmbo[trl]."
        ) from error
    return trl
