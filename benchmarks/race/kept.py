"""Best and middle values that take a search to find, kept beside the code.

python -m benchmarks.race.kept                # search all, minutes
python -m benchmarks.race.kept --tasks lora-10
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path

from optuna_llmbo.errors import InputError


PATH = Path(__file__).parent / "kept.json"


@dataclass(frozen=True)
class Known:
    """What is known of a task's values."""

    best: float
    middle: float


def read(name: str) -> Known:
    """What was kept of a task.

    Raises:
        InputError: if nothing was.
    """
    everything = _read_all()
    if name not in everything:
        raise InputError(
            f"{PATH.name} holds {', '.join(everything) or 'nothing'}, not {name!r}: make it with "
            f"`python -m benchmarks.race.kept --tasks {name}`."
        )
    return Known(**everything[name])


def searches() -> dict[str, Callable[[], Known]]:
    """How each value is found."""
    from benchmarks.race import conditional
    from benchmarks.race import lora

    return {
        "lora-10": lambda: lora.search("lora-10"),
        "lora-100": lambda: lora.search("lora-100"),
        "conditional": conditional.search,
    }


def _read_all() -> dict[str, dict[str, float]]:
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def main() -> None:
    """Search, and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = searches()
    parser.add_argument("--tasks", nargs="+", choices=known, default=list(known))
    for name in parser.parse_args().tasks:
        found = known[name]()
        everything = _read_all() | {name: dataclasses.asdict(found)}
        PATH.write_text(json.dumps(everything, indent=1) + "\n")
        print(name, found)


if __name__ == "__main__":
    main()
