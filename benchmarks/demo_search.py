"""Run the demo's search with several samplers: same objective, same budget, same first trial.

Every sampler starts with the default configuration. There is one JSON file of results per
sampler and seed, with every trial; an interrupted run continues where it stopped.

    python -m benchmarks.demo_search                      # run what is missing, print the table
    python -m benchmarks.demo_search --report             # only print the table
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import platform
import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import torch

from benchmarks.provenance import commit
from benchmarks.provenance import versions
from optuna_llmbo import LLMBOSampler
from optuna_llmbo import LoRAObjective


RESULTS = Path(__file__).parent / "results" / "demo_search"
SAMPLERS = ("llmbo", "tpe", "random")
VERSIONS = ("optuna-llmbo", "optuna", "torch", "transformers", "peft", "botorch")
PYTHON = platform.python_version()


COMMIT = commit()  # read before the first trial, as the tree may change while trials run


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Make a sampler with its default settings."""
    if name == "llmbo":
        return LLMBOSampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def run(name: str, seed: int, n_trials: int, objective: LoRAObjective, folder: Path) -> None:
    """Run one study, stored in SQLite while it runs and as JSON when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / f"{name}-{seed}.db"
    study = optuna.create_study(
        study_name="demo",
        storage=f"sqlite:///{database}",
        load_if_exists=True,
        sampler=make_sampler(name, seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    if not study.trials:
        study.enqueue_trial(objective.default_params)
    finished = (TrialState.COMPLETE, TrialState.PRUNED)
    n_done = len(study.get_trials(states=finished))
    study.optimize(objective, n_trials=n_trials - n_done)
    trials = study.get_trials(states=finished)
    result = {
        "sampler": name,
        "seed": seed,
        "base_loss": objective.base_loss,
        "objective": objective.fingerprint,
        "versions": versions(VERSIONS),
        "python": PYTHON,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "commit": COMMIT,
        "date": time.strftime("%Y-%m-%d"),
        "trials": [record(trial) for trial in trials],
    }
    (folder / f"{name}-{seed}.json").write_text(json.dumps(result, indent=1) + "\n")
    database.unlink()


def record(trial: FrozenTrial) -> dict[str, Any]:
    """Return the saved record of a trial."""
    assert trial.duration is not None
    training = trial.user_attrs["seconds"]
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "intermediate": trial.intermediate_values,
        "params": trial.params,
        "training_seconds": training,
        "suggestion_seconds": round(trial.duration.total_seconds() - training, 3),
    }


def report(folder: Path) -> None:
    """Print a line per result: default, best found, when, and the time of a suggestion."""
    print(
        "| sampler | seed | base | default | best found | found in trial | pruned | "
        "suggestion, mean s | trials, total s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        trials = result["trials"]
        complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
        best = min(complete, key=lambda trial: trial["value"])
        waits = [trial["suggestion_seconds"] for trial in trials]
        chosen = waits[5:] if result["sampler"] == "llmbo" else waits
        total = sum(waits) + sum(trial["training_seconds"] for trial in trials)
        print(
            f"| {result['sampler']} | {result['seed']} | {result['base_loss']:.3f} | "
            f"{trials[0]['value']:.3f} | {best['value']:.3f} | {best['number'] + 1} of "
            f"{len(trials)} | {len(trials) - len(complete)} | "
            f"{sum(chosen) / len(chosen):.2f} | {total:.0f} |"
        )


def main() -> None:
    """Run the studies that have no result yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--proxy", type=float, default=0.0305)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--validation", type=int, default=32)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="print the table and stop")
    arguments = parser.parse_args()

    pairs = [(s, n) for n in arguments.seeds for s in arguments.samplers]
    missing = [(s, n) for s, n in pairs if not (arguments.results / f"{s}-{n}.json").exists()]
    if missing and not arguments.report:
        objective = LoRAObjective(
            "embedded",
            "stdlib-docstrings",
            proxy=arguments.proxy,
            max_length=arguments.max_length,
            validation=arguments.validation,
            reports=3,
        )
        for name, seed in missing:
            run(name, seed, arguments.trials, objective, arguments.results)
    report(arguments.results)


if __name__ == "__main__":
    main()
