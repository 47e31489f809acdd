"""Ask and tell: a loop of your own that evaluates several configurations at once.

Where trials run elsewhere (a cluster, a laboratory, a robot), the program asks for a batch, has it
evaluated, and tells the results. When it asks for the second member of a batch, the result of the
first is not yet known; the sampler counts it as running and looks elsewhere. Here a batch is four
random forests on scikit-learn's wine data, fitted side by side. A search that evaluates one
configuration at a time gets the same number of trials and the same seed.

Expect one line per batch: the distance between its two closest members (0 for the same point, 1
for opposite corners of the space) and its lowest loss; then the results of both searches.

    pip install scikit-learn
    python examples/ask_and_tell.py --batches 5
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
import math
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from optuna_llmbo import LLMBOSampler


SPACE: dict[str, Any] = {
    "max_features": FloatDistribution(0.05, 1.0),
    "max_samples": FloatDistribution(0.1, 1.0),
    "min_samples_leaf": IntDistribution(1, 20),
}


def loss(params: dict[str, Any]) -> float:
    """Compute the log loss over three folds, in nats."""
    forest = RandomForestClassifier(n_estimators=40, random_state=0, **params)
    X, y = load_wine(return_X_y=True)
    return float(-cross_val_score(forest, X, y, cv=3, scoring="neg_log_loss").mean())


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Compute the distance between two configurations, as a share of the space's diagonal."""
    gaps = [(one[name] - other[name]) / (d.high - d.low) for name, d in SPACE.items()]
    return math.hypot(*gaps) / math.sqrt(len(SPACE))


def search(batches: int, size: int, seed: int) -> optuna.Study:
    """Repeatedly ask for a batch, evaluate it and tell its results."""
    study = optuna.create_study(direction="minimize", sampler=LLMBOSampler(seed=seed))
    for batch in range(batches):
        trials = [study.ask(SPACE) for _ in range(size)]
        with ThreadPoolExecutor(size) as pool:
            losses = list(pool.map(loss, [trial.params for trial in trials]))
        for trial, value in zip(trials, losses, strict=True):
            study.tell(trial, value)
        if size > 1:
            nearest = min(distance(a.params, b.params) for a, b in combinations(trials, 2))
            print(f"batch {batch + 1}: closest two {nearest:.2f} apart, best {min(losses):.4f}")
    return study


def main() -> None:
    """Run both searches and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--size", type=int, default=4, help="of a batch")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    n_trials = arguments.batches * arguments.size
    in_batches = search(arguments.batches, arguments.size, arguments.seed).best_value
    one_by_one = search(n_trials, 1, arguments.seed).best_value
    print(f"best of {n_trials}: {in_batches:.4f} in {arguments.batches} batches")
    print(f"best of {n_trials}: {one_by_one:.4f} one at a time")


if __name__ == "__main__":
    main()
