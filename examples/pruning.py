"""Pruning: Hyperband stops what learns badly, and the sampler learns from what was stopped.

A linear classifier reads scikit-learn's handwritten digits by stochastic gradient descent, pass by
pass, and reports its log loss after each. `HyperbandPruner` splits the trials into brackets and
stops the worse ones of each early. A stopped trial still informs the sampler: the earlier it was
stopped, the less. The same search without a pruner gets the same number of trials and the same
seed.

Expect, for each search, the passes over the data that it took and its lowest loss: what pruning
saved, and what it cost.

    pip install scikit-learn
    python examples/pruning.py --trials 20
"""

from __future__ import annotations

import argparse

import optuna
from optuna.pruners import BasePruner
from optuna.pruners import HyperbandPruner
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from optuna_llmbo import LLMBOSampler


PASSES = 27


def objective(trial: optuna.Trial) -> float:
    """Compute the log loss on held-out digits in nats, reported after each pass."""
    X, y = load_digits(return_X_y=True)
    X_train, X_valid, y_train, y_valid = train_test_split(
        X / 16, y, test_size=0.5, stratify=y, random_state=0
    )
    model = SGDClassifier(
        loss="log_loss",
        alpha=trial.suggest_float("alpha", 1e-7, 1e-1, log=True),
        learning_rate="invscaling",
        eta0=trial.suggest_float("eta0", 1e-3, 10.0, log=True),
        power_t=trial.suggest_float("power_t", 0.0, 0.5),
        random_state=0,
    )
    for n_passes in range(1, PASSES + 1):
        model.partial_fit(X_train, y_train, classes=range(10))
        loss = log_loss(y_valid, model.predict_proba(X_valid))
        trial.report(loss, n_passes)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


def search(pruner: BasePruner, trials: int, seed: int) -> optuna.Study:
    """Run one search; only the pruner differs."""
    study = optuna.create_study(
        study_name="digits",  # Hyperband assigns trials to brackets by the study's name
        direction="minimize",
        sampler=LLMBOSampler(seed=seed),
        pruner=pruner,
    )
    study.optimize(objective, n_trials=trials)
    return study


def main() -> None:
    """Run both searches and print what pruning saved."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    hyperband = HyperbandPruner(min_resource=1, max_resource=PASSES, reduction_factor=3)
    passes = {}
    for title, pruner in (("no pruner", NopPruner()), ("Hyperband", hyperband)):
        study = search(pruner, arguments.trials, arguments.seed)
        passes[title] = sum(len(trial.intermediate_values) for trial in study.trials)
        pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
        print(
            f"{title}: {passes[title]:4} passes, {pruned:2} of {arguments.trials} trials pruned, "
            f"best {study.best_value:.4f} nats"
        )
    print(f"saved {1 - passes['Hyperband'] / passes['no pruner']:.0%} of the passes")


if __name__ == "__main__":
    main()
