"""Measure the processor time of commands that only look: `--help`, `doctor` and `report`.

`report` writes a study of twelve trials. The fastest of three runs counts. `--source` measures the
package of another checkout, kept under another `--label`.

    python -m benchmarks.commands                                      # half a minute
    python -m benchmarks.commands --label before --source ../earlier   # of an earlier commit
    python -m benchmarks.commands --report                             # the kept results
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

import optuna

from benchmarks import console
from benchmarks.provenance import commit
from benchmarks.race.run import provenance


RESULTS = Path(__file__).parent / "results" / "commands.json"
COMMANDS = {
    "--help": ["--help"],
    "doctor": ["doctor"],
    "report": ["report", "study", "--storage", "sqlite:///study.db", "--out", "report.html"],
}
RUN = "from optuna_llmbo.cli import main; main()"
N_TRIALS, N_RUNS = 12, 3


def objective(trial: optuna.Trial) -> float:
    """A smooth function of the hyperparameters of a LoRA run."""
    rate = trial.suggest_float("learning_rate", 1e-6, 5e-3, log=True)
    rank = trial.suggest_int("rank", 1, 256, log=True)
    batch = trial.suggest_categorical("batch_size", [4, 8, 16, 32])
    return abs(rate - 2e-4) * 1e3 + abs(rank - 16) / 256 + batch / 64


def processor_seconds(arguments: list[str], folder: Path, source: Path) -> float:
    """Run a command in a process of its own; the processor seconds that it took."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", RUN, *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(source: Path) -> dict[str, float]:
    """The processor seconds of each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = optuna.create_study(
            storage=f"sqlite:///{folder}/study.db",
            study_name="study",
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        study.optimize(objective, n_trials=N_TRIALS)
        return {
            command: min(processor_seconds(words, folder, source) for _ in range(N_RUNS))
            for command, words in COMMANDS.items()
        }


def table(record: dict[str, Any]) -> str:
    """Format the seconds by command, a column for each label."""
    rows = [
        [f"`{command}`", *(f"{record[label]['seconds'][command]:.1f}" for label in record)]
        for command in COMMANDS
    ]
    return console.table(["command", *(f"{label}, processor seconds" for label in record)], rows)


def main() -> None:
    """Measure, save and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    parser.add_argument("--label", default="now")
    parser.add_argument("--source", type=Path, default=Path(__file__).parent.parent)
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not given.report:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        found = {"seconds": measure(given.source.resolve()), **provenance()}
        found["commit"] = commit(given.source)
        kept[given.label] = found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(kept))


if __name__ == "__main__":
    main()
