"""A conditional space: which of three models reads handwritten digits best, with which settings?

The first hyperparameter selects the model; each model has hyperparameters of its own. The sampler
learns the structure from the trials, and chooses a model and its hyperparameters with one fit. TPE
chooses them one by one; it gets the same number of trials and the same seed.

Expect a table: the number of trials of each model, its lowest error in brackets, and the winner.
The trials of the other models are what the choice has cost.

    pip install scikit-learn
    python examples/conditional.py --trials 20
"""

from __future__ import annotations

import argparse
import warnings

import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import TPESampler
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from optuna_llmbo import LLMBOSampler


MODELS = ("svm", "forest", "network")


def suggest_model(trial: optuna.Trial) -> ClassifierMixin:
    """Suggest one of three models, with its own hyperparameters."""
    name = trial.suggest_categorical("model", MODELS)
    if name == "svm":
        return SVC(
            C=trial.suggest_float("C", 1e-2, 100.0, log=True),
            gamma=trial.suggest_float("gamma", 1e-3, 100.0, log=True),
        )
    if name == "forest":
        return RandomForestClassifier(
            n_estimators=trial.suggest_int("n_estimators", 10, 100, log=True),
            max_features=trial.suggest_float("max_features", 0.05, 1.0, log=True),
            min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 20, log=True),
            random_state=0,
        )
    return MLPClassifier(
        hidden_layer_sizes=trial.suggest_int("hidden_layer_sizes", 4, 64, log=True),
        learning_rate_init=trial.suggest_float("learning_rate_init", 1e-4, 1e-1, log=True),
        batch_size=trial.suggest_int("batch_size", 16, 128, log=True),
        max_iter=15,
        random_state=0,
    )


def objective(trial: optuna.Trial) -> float:
    """Compute the share of held-out digits that are misread."""
    X, y = load_digits(return_X_y=True)
    X_train, X_valid, y_train, y_valid = train_test_split(
        X / 16, y, test_size=0.5, stratify=y, random_state=0
    )
    model = suggest_model(trial).fit(X_train, y_train)
    return float(1 - model.score(X_valid, y_valid))


def show(title: str, sampler: BaseSampler, trials: int) -> None:
    """Search, and print how many trials each model got."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=trials)
    print(f"{title:14}", end="")
    for name in MODELS:
        of_model = [trial for trial in study.trials if trial.params["model"] == name]
        errors = [trial.value for trial in of_model if trial.value is not None]
        cell = f"{len(errors)} ({min(errors):.1%})" if errors else "0"
        print(f"{cell:>14}", end="")
    print(f"   best: {study.best_params['model']}, {study.best_value:.2%}")


def main() -> None:
    """Run both searches and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ConvergenceWarning)  # networks train for 15 epochs only

    print("trials of each model (its lowest error)")
    print(f"{'':14}" + "".join(f"{name:>14}" for name in MODELS))
    show("LLMBOSampler", LLMBOSampler(seed=arguments.seed), arguments.trials)
    show("TPESampler", TPESampler(seed=arguments.seed), arguments.trials)


if __name__ == "__main__":
    main()
