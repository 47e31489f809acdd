"""Knowledge of your own: a pack for support vector machines, in `svm.toml` beside this file.

The package has no such pack. The file states where good values of `C` and `gamma` lie, which
product of them matters and what to try first; `knowledge="svm.toml"` is all that the sampler
needs. The task is to read scikit-learn's handwritten digits. The same search without the pack gets
the same number of trials and the same seeds.

Expect a table: the mean over the seeds of the share of digits misread by the best trial so far.
Without the pack the first trial is the middle of the ranges, which are those of LIBSVM's guide.

    pip install scikit-learn
    python examples/custom_knowledge.py --trials 15 --seeds 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from optuna_llmbo import LLMBOSampler


PACK = Path(__file__).with_name("svm.toml")


def objective(trial: optuna.Trial) -> float:
    """Compute the share of digits misread, over three folds."""
    X, y = load_digits(return_X_y=True)
    cost = trial.suggest_float("C", 2**-5, 2**15, log=True)
    gamma = trial.suggest_float("gamma", 2**-15, 2**3, log=True)
    model = make_pipeline(StandardScaler(), SVC(C=cost, gamma=gamma))
    return float(1 - cross_val_score(model, X, y, cv=3).mean())


def best_so_far(sampler: LLMBOSampler, trials: int) -> np.ndarray:
    """Run a new study; return the lowest error up to each trial, (trials,)."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return np.minimum.accumulate(
        [trial.value for trial in study.trials if trial.value is not None]
    )


def main() -> None:
    """Search with and without the pack, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=2, help="searches of each kind")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    at = [n for n in (1, 3, 6, 10, 15, 30) if n <= arguments.trials]
    print(f"{'misread after':16}" + "".join(f"{n:8}" for n in at))
    for title, knowledge in (("with svm.toml", PACK), ("without it", "auto")):
        curves = [
            best_so_far(LLMBOSampler(knowledge=knowledge, seed=seed), arguments.trials)
            for seed in range(arguments.seeds)
        ]
        means = np.mean(curves, axis=0)
        print(f"{title:16}" + "".join(f"{means[n - 1]:8.2%}" for n in at))


if __name__ == "__main__":
    main()
