"""Record what each example prints with its default arguments, and the processor time it takes.

Seconds are those of one core, in user and system mode, including imports; they hardly depend on
what else the machine does. Ray's own processes are not counted. Results of examples that are not
run again are kept. `lora` gets 3 trials instead of 12.

    python -m benchmarks.examples                     # all, 18 minutes of one core
    python -m benchmarks.examples --only quickstart,gbdt
    python -m benchmarks.examples --report            # the kept results as Markdown
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import console
from benchmarks.provenance import commit
from benchmarks.provenance import versions


ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "examples.json"
# as ordered in examples/README.md
EXAMPLES = (
    "quickstart", "gbdt", "conditional", "multi_objective", "pruning", "ask_and_tell", "transfer",
    "custom_knowledge", "sklearn_search_cv", "ray_tune", "hf_trainer", "lora",
    "trl_sft", "trl_dpo", "prompts", "recipes",
)  # fmt: skip
# where the default budget takes many minutes
ARGUMENTS = {"lora": ("--trials", "3")}
PACKAGES = ("optuna", "torch", "botorch", "scikit-learn", "ray", "transformers", "peft", "trl")


def run(name: str) -> dict[str, Any]:
    """Run an example on one thread, in an empty folder, as some write their studies there."""
    before = _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, str(ROOT / "examples" / f"{name}.py"), *ARGUMENTS.get(name, ())],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    seconds = round(_processor_seconds() - before, 1)
    *_, printed = result.stdout.strip().split("\n\n")  # without Ray's heading
    return {"seconds": seconds, "printed": printed.splitlines()}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(results: dict[str, Any]) -> str:
    """Format the seconds of each example that has been run."""
    rows = [[name, f"{results[name]['seconds']:.0f}"] for name in EXAMPLES if name in results]
    return console.table(["example", "seconds of one core"], rows)


def main() -> None:
    """Run, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--report", action="store_true", help="print the kept results and stop")
    parser.add_argument("--save", type=Path, default=RESULTS)
    options = parser.parse_args()
    kept = json.loads(options.save.read_text()) if options.save.exists() else {}
    if not options.report:
        came_about = {"commit": commit(), "versions": versions(PACKAGES)}
        for name in options.only.split(",") if options.only else EXAMPLES:
            kept[name] = {**run(name), **came_about}
            options.save.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(kept))


if __name__ == "__main__":
    main()
