"""Measure the effect of a user's own pack: docs/knowledge.md's, for support vector machines.

Three data sets from scikit-learn, the same search space and seeds, with the pack of
examples/svm.toml and without. The pack was written before the first run and not changed since.

    python -m benchmarks.svm_pack            # some minutes on one core, and the table
    python -m benchmarks.svm_pack --report   # the kept results as Markdown
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from sklearn import datasets
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.console import table
from benchmarks.provenance import commit
from benchmarks.race.run import provenance
from benchmarks.race.statistics import bootstrap
from optuna_llmbo import LLMBOSampler


RESULTS = Path(__file__).parent / "results" / "svm_pack.json"
PACK = Path(__file__).parents[1] / "examples" / "svm.toml"
N_TRIALS, N_SEEDS = 15, 10
SHOWN = (1, 5, 10, 15)
DATA: dict[str, Callable[..., Any]] = {
    "breast cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "digits": datasets.load_digits,
}


def objective_of(name: str) -> Callable[[optuna.Trial], float]:
    """Make the objective: mean error in three-fold cross-validation, in percent."""
    inputs, targets = DATA[name](return_X_y=True)

    def objective(trial: optuna.Trial) -> float:
        cost = trial.suggest_float("C", 2**-5, 2**15, log=True)
        gamma = trial.suggest_float("gamma", 2**-15, 2**3, log=True)
        machine = make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma))
        return 100 * (1 - float(cross_val_score(machine, inputs, targets, cv=3).mean()))

    return objective


def run(objective: Callable[[optuna.Trial], float], with_pack: bool, seed: int) -> list[float]:
    """Run one study; return the best error after each trial."""
    sampler = LLMBOSampler(knowledge=PACK if with_pack else "auto", seed=seed)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=N_TRIALS)
    return list(
        np.minimum.accumulate([trial.value for trial in study.trials if trial.value is not None])
    )


def report(record: dict[str, Any]) -> str:
    """Format mean errors over seeds, and the paired gain with 95% bootstrap intervals."""
    rows = []
    for name, arms in record["studies"].items():
        without, with_pack = (np.array(arms[arm]) for arm in ("without", "with"))
        for n in SHOWN:
            gain = bootstrap(without[:, n - 1] - with_pack[:, n - 1], np.mean)
            means = (f"{arm[:, n - 1].mean():.2f}" for arm in (without, with_pack))
            interval = f"{gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f})"
            rows.append([name, str(n), *means, interval])
    return table(["data", "trials", "without", "with the pack", "gain"], rows)


def main() -> None:
    """Run all studies, save them and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="only print the kept results")
    if not parser.parse_args().report:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        began_at, studies = commit(), {}
        for name in DATA:
            objective = objective_of(name)
            studies[name] = {
                arm: [run(objective, arm == "with", seed) for seed in range(N_SEEDS)]
                for arm in ("without", "with")
            }
        record = {"studies": studies, **provenance(), "commit": began_at}
        RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
