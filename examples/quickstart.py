"""The sampler on an ordinary Optuna study: no LoRA, no GPU, about a minute.

Gradient boosting on scikit-learn's breast-cancer data; the sampler recognizes the names of the
hyperparameters and reads what the built-in `boosting` pack knows about them.

    pip install scikit-learn
    python examples/quickstart.py --trials 15
"""

from __future__ import annotations

import argparse

import optuna
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import cross_val_score

from optuna_llmbo import LLMBOSampler


def objective(trial: optuna.Trial) -> float:
    """Mean cross-validated log loss, in nats."""
    model = GradientBoostingClassifier(
        learning_rate=trial.suggest_float("learning_rate", 0.005, 0.5, log=True),
        n_estimators=trial.suggest_int("n_estimators", 10, 150, log=True),
        max_depth=trial.suggest_int("max_depth", 1, 6),
        subsample=trial.suggest_float("subsample", 0.4, 1.0),
        random_state=0,
    )
    X, y = load_breast_cancer(return_X_y=True)
    return float(-cross_val_score(model, X, y, cv=3, scoring="neg_log_loss").mean())


def main() -> None:
    """Run the study and print what it found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=15)
    parser.add_argument("--llm", default=None, help="as LLMBOSampler(llm=...)")
    arguments = parser.parse_args()

    sampler = LLMBOSampler(
        llm=arguments.llm,
        task="Gradient boosting on 569 tumours with 30 features; minimize the log loss.",
        seed=0,
    )
    study = optuna.create_study(direction="minimize", sampler=sampler)
    study.optimize(objective, n_trials=arguments.trials)
    print(f"first trial {study.trials[0].value:.4f}, best {study.best_value:.4f} nats")
    print(study.best_params)


if __name__ == "__main__":
    main()
