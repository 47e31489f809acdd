"""Gradient boosting on a table, with and without the built-in `boosting` pack.

Six hyperparameters of scikit-learn's `HistGradientBoostingRegressor` on its diabetes data. The
pack is chosen by the names of the hyperparameters: it tries the libraries' defaults first, knows
where good values lie, and gives the model a column for learning rate times number of trees. Three
searches get the same number of trials and the same seeds: with the pack, without any knowledge,
and Optuna's TPE.

Expect a table: the mean over the seeds of the best error after some trials. A few seeds on one
small table show how the pack is used, not which sampler is better; for that, see docs/benchmarks.

    pip install scikit-learn
    python examples/gbdt.py --trials 15 --seeds 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import TPESampler
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import cross_val_score

from optuna_llmbo import LLMBOSampler


TASK = "Gradient boosting on 442 patients with 10 features; minimize the root mean squared error."


def objective(trial: optuna.Trial) -> float:
    """Compute the root mean squared error over three folds."""
    model = HistGradientBoostingRegressor(
        learning_rate=trial.suggest_float("learning_rate", 0.005, 0.5, log=True),
        max_iter=trial.suggest_int("max_iter", 10, 200, log=True),
        max_leaf_nodes=trial.suggest_int("max_leaf_nodes", 3, 63, log=True),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 2, 50, log=True),
        l2_regularization=trial.suggest_float("l2_regularization", 1e-3, 100.0, log=True),
        max_features=trial.suggest_float("max_features", 0.2, 1.0),
        random_state=0,
    )
    X, y = load_diabetes(return_X_y=True)
    scores = cross_val_score(model, X, y, cv=3, scoring="neg_root_mean_squared_error")
    return float(-scores.mean())


def best_so_far(sampler: BaseSampler, trials: int) -> np.ndarray:
    """Run a new study; return the lowest error up to each trial, (trials,)."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return np.minimum.accumulate(
        [trial.value for trial in study.trials if trial.value is not None]
    )


def show(title: str, curves: Sequence[np.ndarray], at: Sequence[int]) -> None:
    """Print one line of the table."""
    means = np.mean(curves, axis=0)
    print(f"{title:20}" + "".join(f"{means[n - 1]:10.3f}" for n in at))


def main() -> None:
    """Run the three searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=2, help="searches of each kind")
    parser.add_argument("--llm", default="auto", help="as LLMBOSampler(llm=...)")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def with_pack(seed: int) -> BaseSampler:
        return LLMBOSampler(llm=arguments.llm, task=TASK, seed=seed)

    def without(seed: int) -> BaseSampler:
        return LLMBOSampler(knowledge=None, seed=seed)

    def tpe(seed: int) -> BaseSampler:
        return TPESampler(seed=seed)

    at = sorted({1, 5, arguments.trials // 2, arguments.trials} & set(range(arguments.trials + 1)))
    print(f"{'best error after':20}" + "".join(f"{n:10}" for n in at))
    for title, make in (
        ("boosting pack", with_pack),
        ("no knowledge", without),
        ("TPESampler", tpe),
    ):
        curves = [best_so_far(make(seed), arguments.trials) for seed in range(arguments.seeds)]
        show(title, curves, at)


if __name__ == "__main__":
    main()
