"""Read a user's TOML file."""

from __future__ import annotations

from pathlib import Path
import tomllib
from typing import Any

from optuna_llmbo.errors import InputError


def read_toml(path: Path, what: str, instead: str) -> dict[str, Any]:
    """Read a user's TOML file.

    Args:
        path: path of the file.
        what: its content, for messages, such as "search space".
        instead: the remedy if it cannot be read, such as "give the path of a TOML file".

    Raises:
        InputError: if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{what} {str(path)!r} cannot be read ({error.strerror}): {instead}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {str(path)!r} is not valid TOML: {error}") from error
