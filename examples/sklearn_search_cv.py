"""The sampler under a scikit-learn search: a pipeline tuned by cross-validation, in a minute.

`OptunaSearchCV` is a scikit-learn estimator that takes any study. The sampler knows the
hyperparameters by scikit-learn's nested names, `mlpclassifier__alpha` among them.

    pip install scikit-learn "optuna-integration>=5.0"
    python examples/sklearn_search_cv.py --trials 12
"""

from __future__ import annotations

import argparse
import warnings

import optuna
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna_integration import OptunaSearchCV
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from optuna_llmbo import LLMBOSampler


SPACE = {
    "mlpclassifier__hidden_layer_sizes": IntDistribution(4, 128, log=True),
    "mlpclassifier__alpha": FloatDistribution(1e-6, 10.0, log=True),
    "mlpclassifier__learning_rate_init": FloatDistribution(1e-4, 0.3, log=True),
    "mlpclassifier__batch_size": IntDistribution(8, 64, log=True),
}


def main() -> None:
    """Search, refit the best on all training data, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--llm", default="auto", help="as LLMBOSampler(llm=...)")
    arguments = parser.parse_args()

    sampler = LLMBOSampler(
        llm=arguments.llm,
        task="A small network tells 3 wines apart by 13 measurements; maximize log likelihood.",
        seed=0,
    )
    network = MLPClassifier(max_iter=40, random_state=0)
    search = OptunaSearchCV(
        make_pipeline(StandardScaler(), network),
        SPACE,
        study=optuna.create_study(direction="maximize", sampler=sampler),
        scoring="neg_log_loss",
        n_trials=arguments.trials,
        cv=3,
    )
    warnings.simplefilter("ignore", ConvergenceWarning)  # trials train for 40 epochs only
    # optuna-integration 5.0 uses a deprecated part of Optuna.
    warnings.filterwarnings("ignore", message=".*optuna.terminator", category=FutureWarning)
    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    search.fit(X_train, y_train)

    first = search.trials_[0].value
    print(f"first trial {first:.4f}, best {search.best_score_:.4f} (mean log likelihood, 3 folds)")
    print(f"best on held-out data {search.score(X_test, y_test):.4f}")
    print(search.best_params_)


if __name__ == "__main__":
    main()
