"""Transfer: what an earlier study learned helps a later one on other data.

A small network is first tuned to tell the digits 0 to 4 apart, then again for the digits 5 to 9,
once with `source_studies=[earlier]` and once without. The earlier trials inform the later model as
far as they agree with its own; the best earlier configurations are tried first.

Expect two lines per seed: the first good trial of the later search, with and without the earlier
study; and the losses of the first and the best trial. A good loss is at most a tenth above the
best of both searches.

    pip install scikit-learn
    python examples/transfer.py --trials 15 --seeds 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import warnings

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_llmbo import LLMBOSampler


Objective = Callable[[optuna.Trial], float]

GOOD = 1.1  # times the best loss of both searches


def objective_on(digits: range) -> Objective:
    """Make the objective: log loss on held-out images of these digits after 10 epochs, in nats."""
    X, y = load_digits(return_X_y=True)
    chosen = np.isin(y, digits)
    X_train, X_valid, y_train, y_valid = train_test_split(
        X[chosen] / 16, y[chosen], test_size=0.5, stratify=y[chosen], random_state=0
    )

    def objective(trial: optuna.Trial) -> float:
        network = MLPClassifier(
            hidden_layer_sizes=trial.suggest_int("hidden_layer_sizes", 4, 64, log=True),
            learning_rate_init=trial.suggest_float("learning_rate_init", 1e-5, 1.0, log=True),
            batch_size=trial.suggest_int("batch_size", 8, 128, log=True),
            alpha=trial.suggest_float("alpha", 1e-6, 10.0, log=True),
            max_iter=10,
            random_state=0,
        )
        network.fit(X_train, y_train)
        return log_loss(y_valid, network.predict_proba(X_valid))

    return objective


def losses(
    objective: Callable[[optuna.Trial], float], sampler: LLMBOSampler, n: int
) -> list[float]:
    """Run a new study; return the loss of each trial."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=n)
    return [trial.value for trial in study.trials if trial.value is not None]


def first_good(losses: list[float], good: float) -> str:
    """Name the first trial, counted from 1, at or below a loss."""
    numbers = [i for i, loss in enumerate(losses, start=1) if loss <= good]
    return f"trial {numbers[0]}" if numbers else f"none of {len(losses)}"


def main() -> None:
    """Run the earlier study, then the later one with and without the earlier."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=15, help="of each study")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ConvergenceWarning)  # networks train for 10 epochs only

    earlier = optuna.create_study(direction="minimize", sampler=LLMBOSampler(seed=100))
    earlier.optimize(objective_on(range(5)), n_trials=arguments.trials)
    print(f"earlier study, digits 0 to 4: best {earlier.best_value:.4f} nats")
    later = objective_on(range(5, 10))
    for seed in range(arguments.seeds):
        with_it = losses(
            later, LLMBOSampler(source_studies=[earlier], seed=seed), arguments.trials
        )
        without = losses(later, LLMBOSampler(seed=seed), arguments.trials)
        good = GOOD * min(with_it + without)
        print(
            f"digits 5 to 9, seed {seed}, good is {good:.4f}: with the earlier study "
            f"{first_good(with_it, good)}, without {first_good(without, good)}"
        )
        print(
            f"    first trial {with_it[0]:.4f} with, {without[0]:.4f} without; "
            f"best {min(with_it):.4f} with, {min(without):.4f} without"
        )


if __name__ == "__main__":
    main()
