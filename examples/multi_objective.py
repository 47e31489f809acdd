"""Two objectives: a forest that predicts well and is small.

Log loss of a random forest on scikit-learn's breast-cancer data against the number of its nodes,
which is what it costs to keep and to run. No forest is best at both: the result of the study is
its Pareto front, the forests that no other one beats in both. The hypervolume is the part of the
plane, from the reference point of 0.4 nats and 4,000 nodes to the ideal of 0 nats and 3 nodes (on
a log scale), that the front dominates: larger is better. Random search gets the same number of
trials and the same seed.

Expect the front, one line a forest, then the two hypervolumes.

    pip install scikit-learn
    python examples/multi_objective.py --trials 20
"""

from __future__ import annotations

import argparse

from botorch.utils.multi_objective.hypervolume import Hypervolume
import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
import torch

from optuna_llmbo import LLMBOSampler


WORST_LOSS = 0.4  # nats
FEWEST_NODES, MOST_NODES = 3, 4000


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Compute the log loss on held-out tumours in nats, and log10 of the number of nodes."""
    forest = RandomForestClassifier(
        n_estimators=trial.suggest_int("n_estimators", 1, 100, log=True),
        max_depth=trial.suggest_int("max_depth", 1, 10),
        max_features=trial.suggest_float("max_features", 0.05, 1.0, log=True),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 30, log=True),
        random_state=0,
    )
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_valid, y_train, y_valid = train_test_split(
        X, y, test_size=0.5, stratify=y, random_state=0
    )
    forest.fit(X_train, y_train)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return log_loss(y_valid, forest.predict_proba(X_valid)), float(np.log10(nodes))


def search(sampler: BaseSampler, trials: int) -> optuna.Study:
    """Run a study of both objectives."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return study


def hypervolume(study: optuna.Study) -> float:
    """Compute the share of the rectangle from ideal to reference point that is dominated."""
    worst = np.array([WORST_LOSS, np.log10(MOST_NODES)])
    ideal = np.array([0.0, np.log10(FEWEST_NODES)])
    gains = np.array([(worst - trial.values) / (worst - ideal) for trial in study.best_trials])
    return float(Hypervolume(torch.zeros(2)).compute(torch.tensor(gains)))


def main() -> None:
    """Run both searches, print the front and the hypervolumes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    ours = search(LLMBOSampler(seed=arguments.seed), arguments.trials)
    random = search(RandomSampler(seed=arguments.seed), arguments.trials)

    print("  nodes  log loss  trees  depth")
    front = {tuple(trial.values): trial for trial in ours.best_trials}  # equal trials once
    for (loss, log_nodes), trial in sorted(front.items(), key=lambda item: item[0][1]):
        trees, depth = trial.params["n_estimators"], trial.params["max_depth"]
        print(f"{10**log_nodes:7.0f}  {loss:8.4f}  {trees:5}  {depth:5}")
    print(f"hypervolume: LLMBOSampler {hypervolume(ours):.3f}, random {hypervolume(random):.3f}")


if __name__ == "__main__":
    main()
