"""The smallest search: three hyperparameters of a support vector machine, in seconds.

Any objective that Optuna takes will do; `LLMBOSampler` is one argument of `create_study`. The data
are scikit-learn's 442 diabetes patients; no knowledge pack knows these names, so the model has
only the numbers. Expect a line for scikit-learn's defaults, one for the best trial, and one for
the trial that the model recommends, with its prediction.

    pip install scikit-learn
    python examples/quickstart.py
"""

from __future__ import annotations

import argparse

import optuna
from sklearn.datasets import load_diabetes
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVR

from optuna_llmbo import LLMBOSampler


def error(model: SVR) -> float:
    """Compute the root mean squared error over five folds, in units of disease progression."""
    X, y = load_diabetes(return_X_y=True)
    scores = cross_val_score(model, X, y, cv=5, scoring="neg_root_mean_squared_error")
    return float(-scores.mean())


def objective(trial: optuna.Trial) -> float:
    """Compute the error of one configuration."""
    return error(
        SVR(
            C=trial.suggest_float("C", 0.1, 1000.0, log=True),
            gamma=trial.suggest_float("gamma", 1e-3, 100.0, log=True),
            epsilon=trial.suggest_float("epsilon", 0.1, 50.0, log=True),
        )
    )


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    sampler = LLMBOSampler(seed=arguments.seed)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=arguments.trials)

    recommended = sampler.recommend(study)
    expected = recommended.prediction
    found = ", ".join(f"{name} {value:.3g}" for name, value in study.best_params.items())
    print(f"scikit-learn's defaults  {error(SVR()):.2f}")
    print(f"best of {arguments.trials} trials        {study.best_value:.2f} with {found}")
    print(f"recommended: trial {recommended.number}, expected {expected.mean:.2f}")


if __name__ == "__main__":
    main()
