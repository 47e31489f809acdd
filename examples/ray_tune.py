"""The sampler under Ray Tune: two trials at a time, ASHA stops bad ones, Ctrl-C does no harm.

A small network learns scikit-learn's handwritten digits and reports its validation loss after each
epoch. The results folder holds Tune's state, including the sampler, and the study: interrupt the
script with Ctrl-C and run the same command again, and it continues with the remaining trials.
Trials that were running start again, as this objective saves no checkpoints.

    pip install "ray[tune]>=2.50" scikit-learn
    python examples/ray_tune.py --trials 12
    optuna-dashboard sqlite:///ray_results/study.db

Tune tells Optuna the last loss of a trial that ASHA stopped as its value, as if it were complete.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_llmbo import LLMBOSampler


STUDY = "digits"
EPOCHS = 9
SPACE = {
    "hidden_layer_sizes": IntDistribution(8, 128, log=True),
    "learning_rate_init": FloatDistribution(1e-4, 0.3, log=True),
    "alpha": FloatDistribution(1e-6, 1.0, log=True),
    "batch_size": IntDistribution(8, 256, log=True),
}


def train(config: dict[str, Any]) -> None:
    """Run one trial in a Ray process, reporting the loss in nats after each epoch."""
    X, y = load_digits(return_X_y=True)
    X_train, X_valid, y_train, y_valid = train_test_split(X / 16, y, random_state=0)
    network = MLPClassifier(**config, random_state=0)
    for _ in range(EPOCHS):
        network.partial_fit(X_train, y_train, classes=range(10))
        tune.report({"loss": log_loss(y_valid, network.predict_proba(X_valid))})


def new_tuner(folder: Path, storage: str, trials: int, llm: str | None) -> tune.Tuner:
    """Make a new search that keeps its state in `folder`."""
    sampler = LLMBOSampler(
        llm=llm, task="A small network reads 8 x 8 digits; minimize the log loss.", seed=0
    )
    search = OptunaSearch(
        SPACE,
        metric="loss",
        mode="min",
        sampler=sampler,
        study_name=STUDY,
        storage=optuna.storages.RDBStorage(storage),
    )
    return tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=ASHAScheduler(
                metric="loss", mode="min", max_t=EPOCHS, grace_period=1, reduction_factor=3
            ),
            num_samples=trials,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0),
    )


def main() -> None:
    """Start or continue the search, and print what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--llm", default="auto", help="as LLMBOSampler(llm=...)")
    parser.add_argument("--results", type=Path, default=Path("ray_results"), help="a folder")
    arguments = parser.parse_args()

    folder = arguments.results.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{folder / 'study.db'}"
    ray.init(include_dashboard=False)
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), train)  # the number of trials stays as it was
    else:
        tuner = new_tuner(folder, storage, arguments.trials, arguments.llm)
    results = tuner.fit()

    study = optuna.load_study(study_name=STUDY, storage=storage)
    if any(trial.state == TrialState.RUNNING for trial in study.trials):
        print("interrupted: the same command goes on")
        return
    epochs = [(results[i].metrics or {}).get("training_iteration", 0) for i in range(len(results))]
    early = sum(n < EPOCHS for n in epochs)
    print(f"{len(results)} trials, {early} of them stopped early")
    print(f"first trial {study.trials[0].value:.4f}, best {study.best_value:.4f} nats")
    print(study.best_params)


if __name__ == "__main__":
    main()
