"""Best and middle values of tasks that take a search to find, stored beside the code.

`benchmarks.race.search` finds them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path

from optuna_llmbo.errors import InputError


PATH = Path(__file__).parent / "kept.json"


@dataclass(frozen=True)
class Known:
    """A task's best value, and its middle: the median over random configurations."""

    best: float
    middle: float


def read(name: str) -> Known:
    """Read the stored values of a task.

    Raises:
        InputError: if none are stored.
    """
    known = read_all()
    if name not in known:
        raise InputError(
            f"{PATH.name} holds {', '.join(known) or 'nothing'}, not {name!r}: add it with "
            f"`python -m benchmarks.race.search --tasks {name}`."
        )
    return known[name]


def read_all() -> dict[str, Known]:
    """Read the stored values of all tasks."""
    stored = json.loads(PATH.read_text()) if PATH.exists() else {}
    return {name: Known(**values) for name, values in stored.items()}


def write(name: str, found: Known) -> None:
    """Store the values of a task, replacing earlier ones."""
    known = read_all() | {name: found}
    values = {name: dataclasses.asdict(one) for name, one in known.items()}
    PATH.write_text(json.dumps(values, indent=1) + "\n")
