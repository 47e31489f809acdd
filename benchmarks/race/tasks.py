"""All tasks by name, split into those for tuning and those that are reported."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import functools

from benchmarks.race import bbob
from benchmarks.race import branches
from benchmarks.race import choices
from benchmarks.race import conditional
from benchmarks.race import draws
from benchmarks.race import hpobench
from benchmarks.race import lora
from benchmarks.race import real
from benchmarks.race import real_tables
from benchmarks.race.task import FAMILIES
from benchmarks.race.task import Task
from optuna_llmbo.errors import InputError


TASKS: dict[str, Callable[[], Task]] = {
    **hpobench.tasks(),
    **lora.tasks(),
    **bbob.tasks(),
    **conditional.tasks(),
    **real.tasks(),
    **draws.tasks(),
    **branches.tasks(),
    **choices.tasks(),
}
"""Factories; `load` makes a task once per process."""


def _bbob(*functions: str) -> tuple[str, ...]:
    return tuple(bbob.task_name(f, dimension) for f in functions for dimension in bbob.DIMENSIONS)


TUNING = (
    "hpobench-car",
    "hpobench-phoneme",
    "hpobench-vehicle",
    *_bbob("sphere", "rastrigin", "sharp-ridge"),
    "lora-10",
)
"""Tasks on which the sampler's constants may be chosen."""

REPORTED = (
    "hpobench-australian",
    "hpobench-kc1",
    "hpobench-segment",
    "hpobench-blood_transfusion",
    "hpobench-credit_g",
    *_bbob("ellipsoid", "rosenbrock", "attractive-sector", "different-powers", "schaffers"),
    "lora-exact",
    "lora-100",
    "conditional",
)
"""Tasks on which results are reported, and nothing was chosen."""

GROUPS = {
    "tuning": TUNING,
    "reported": REPORTED,
    "all": (*TUNING, *REPORTED),
    "draws": tuple(draws.tasks()),
    "branches": tuple(branches.tasks()),
    "real-tuning": real.TUNING,
    "real-reported": real.REPORTED,
    "real-transfer-tuning": real.TRANSFER_TUNING,
    "real-transfer-reported": real.TRANSFER_REPORTED,
    "choices-tuning": choices.TUNING,
    "choices-reported": choices.REPORTED,
}
"""Groups of tasks; apart are functions drawn from processes and conditional tasks, which are for
tuning alone, and the real fine-tuning runs and choices, whose tables are not included. Groups of
transfer are for methods that use earlier studies, and belong to no family's tasks."""

SPLITS = (
    *TUNING,
    *REPORTED,
    *draws.tasks(),
    *branches.tasks(),
    *real.TUNING,
    *real.REPORTED,
    *choices.TUNING,
    *choices.REPORTED,
)


@functools.cache
def load(name: str) -> Task:
    """Load a task by name."""
    return TASKS[name]()


def check(names: Iterable[str]) -> None:
    """Raise InputError if the data of one of the tasks are missing."""
    for name in names:
        for table in _tables_of(name):
            real_tables.find(table)


def _tables_of(name: str) -> tuple[str, ...]:
    if family_of(name) == "choices":
        return choices.tables_of(name)
    return (real.table_of(name),) if family_of(name) == "real" else ()


def family_of(name: str) -> str:
    """Return the family that a task's name starts with, without loading the task."""
    return name.split("-")[0]


def choose(text: str) -> list[str]:
    """Parse a comma-separated list of task names, families and groups.

    A family means its tasks in both splits, and so excludes the categorical HPOBench grids, which
    are selected by name, or all together as "grids".

    Raises:
        InputError: if a part is none of these.
    """
    chosen: dict[str, None] = {}
    for part in text.split(","):
        chosen.update(dict.fromkeys(_choose_one(part.strip())))
    return list(chosen)


def _choose_one(part: str) -> tuple[str, ...]:
    if part in FAMILIES and part not in TASKS:
        return tuple(name for name in SPLITS if family_of(name) == part)
    if part == "grids":
        return tuple(name for name in TASKS if name.endswith("-grid"))
    if part in GROUPS:
        return GROUPS[part]
    if part in TASKS:
        return (part,)
    raise InputError(
        f"unknown task {part!r}: expected one of {', '.join((*GROUPS, *FAMILIES, 'grids'))}, or "
        f"the name of a task: {', '.join(TASKS)}."
    )
