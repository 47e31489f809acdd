"""Find the best and middle values of tasks whose optimum is not known, and store them.

python -m benchmarks.race.search                # all such tasks, minutes
python -m benchmarks.race.search --tasks lora-10
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import functools

from benchmarks.race import branches
from benchmarks.race import conditional
from benchmarks.race import draws
from benchmarks.race import kept
from benchmarks.race import lora


SEARCHES: dict[str, Callable[[], kept.Known]] = {
    **{name: functools.partial(lora.search, name) for name in lora.FRACTIONS},
    "conditional": conditional.search,
    **{name: functools.partial(branches.search, name) for name in branches.tasks()},
    **{name: functools.partial(draws.search, name) for name in draws.tasks()},
}
"""The search for each task's values."""


def main() -> None:
    """Search, store the values found and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    for name in parser.parse_args().tasks:
        found = SEARCHES[name]()
        kept.write(name, found)
        print(name, found)


if __name__ == "__main__":
    main()
