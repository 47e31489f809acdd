"""The scales of tasks whose data are not part of the repository, stored beside the code.

    python -m benchmarks.race.scales        # needs the tables, see `real_tables`

With them the report needs only the raw results.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np

from benchmarks.race import tasks
from benchmarks.race.task import TrialFailed


PATH = Path(__file__).parent / "scales.json"

FAMILIES = ("choices", "real")
"""Families of published tables."""


@dataclass(frozen=True)
class Scale:
    """Scale of a task's values, to compute regret."""

    best: float
    middle: float
    default: float
    """Value of the default configuration; nan if it has none."""

    def regret(self, values: np.ndarray) -> np.ndarray:
        """Compute the regret: 0 for the best value, 1 for the median random configuration."""
        return (values - self.best) / (self.middle - self.best)


def of(name: str) -> Scale:
    """Return the scale of a task: the stored one, or that of the task itself."""
    stored = json.loads(PATH.read_text()) if PATH.exists() else {}
    return Scale(**stored[name]) if name in stored else _load(name)


def _load(name: str) -> Scale:
    task = tasks.load(name)
    try:
        default = task.value(task.default)
    except TrialFailed:
        default = float("nan")
    return Scale(task.best, task.middle, default)


def main() -> None:
    """Load the tasks of published tables and store their scales."""
    names = sorted(name for name in tasks.TASKS if tasks.family_of(name) in FAMILIES)
    found = {name: asdict(_load(name)) for name in names}
    PATH.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} scales in {PATH.name}")


if __name__ == "__main__":
    main()
