"""Any program as an Optuna objective.

Importing this package loads nothing; the names below do, on first use.
"""

from __future__ import annotations

import importlib
from typing import Any
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_llmbo.command.objective import CommandObjective as CommandObjective


_HOMES = {"CommandObjective": "optuna_llmbo.command.objective"}

__all__ = ["CommandObjective"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
