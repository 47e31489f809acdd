"""Model the loss over a tier's whole space, fitted to the table's runs.

    python -m benchmarks.lora_table.surrogate --fit     # fit and save the kernels' parameters
    python -m benchmarks.lora_table.surrogate           # measure the errors by cross-validation
    python -m benchmarks.lora_table.surrogate --report  # print them

A Gaussian process over the five hyperparameters, each on its own scale. Its kernel learns in which
directions of the space the loss changes, products of hyperparameters among them; none are given to
it. It is fitted to log(loss - floor), so that collapsed runs do not drown out the differences
among good configurations, and learns from all seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from gpytorch.kernels import Kernel
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
import numpy as np
from optuna.distributions import BaseDistribution
import pandas
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold
import torch

from benchmarks.lora_table import tables
from benchmarks.lora_table.facts import live
from benchmarks.lora_table.tables import PARAMS
from benchmarks.lora_table.tiers import PROXY
from benchmarks.lora_table.tiers import tier
from benchmarks.lora_table.tiers import TIERS
from optuna_llmbo.errors import InputError
from optuna_llmbo.space.search_space import SearchSpace


FRACTIONS = (PROXY, 1.0)
"""Fractions with enough runs for a model."""

N_FOLDS = 5
FLOOR = 0.2  # share of the largest gain that the floor lies below the lowest loss

Space = Mapping[str, BaseDistribution]
MakeKernel = Callable[[int], Kernel]
Predict = Callable[[np.ndarray], np.ndarray]
Regressor = Callable[[np.ndarray, np.ndarray], Predict]


@dataclass(frozen=True)
class Surrogate:
    """A fitted model."""

    space: Space
    model: SingleTaskGP
    floor: float

    def predict(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Predict the validation losses, nats per response token, (m,).

        Raises:
            InputError: if a configuration lies outside the space.
        """
        for name in PARAMS:
            bounds: Any = self.space[name]
            for value in (configuration[name] for configuration in configurations):
                if not bounds.low <= value <= bounds.high:
                    raise InputError(
                        f"{name}={value!r} lies outside {bounds}, where no runs were made: ask "
                        "for a configuration of the space."
                    )
        points = _points(self.space, configurations)
        return self.floor + np.exp(_mean(self.model, points))


def load(table: pandas.DataFrame, tier_name: str, fraction: float) -> Surrogate:
    """Load the surrogate of a fraction, with the saved parameters of its kernel.

    Raises:
        InputError: if none were saved for this table and fraction.
    """
    path = _path(tier_name)
    kept = json.loads(path.read_text()) if path.exists() else {}
    one = kept.get(f"{fraction:g}", {})
    rows = _rows(table, fraction)
    if one.get("runs") != _digest(rows):
        raise InputError(
            f"there is no surrogate for these runs at a fraction of {fraction:g} in "
            f"{os.fspath(path)!r}: fit one with `python -m benchmarks.lora_table.surrogate --fit`"
            f"; kept are the fractions {', '.join(kept) or 'none'}."
        )
    space = tier(tier_name).space
    floor = _floor(rows)
    model = _gp(_points(space, tables.configurations(rows)), _target(rows, floor), MixingKernel)
    state = {name: torch.tensor(value).double() for name, value in one["state"].items()}
    model.load_state_dict(state)
    model.eval()
    return Surrogate(space, model, floor)


def fit(table: pandas.DataFrame, tier_name: str) -> None:
    """Fit the surrogates of all fractions and save the parameters of their kernels."""
    kept = {}
    for fraction in FRACTIONS:
        rows = _rows(table, fraction)
        inputs = _points(tier(tier_name).space, tables.configurations(rows))
        model = _fitted_gp(inputs, _target(rows, _floor(rows)), MixingKernel)
        state = {name: value.tolist() for name, value in model.state_dict().items()}
        kept[f"{fraction:g}"] = {"runs": _digest(rows), "state": state}
    _path(tier_name).write_text(json.dumps(kept, indent=1) + "\n")


def errors(table: pandas.DataFrame, tier_name: str) -> list[dict[str, Any]]:
    """Cross-validate the errors of the surrogate and of its alternatives.

    All seeds of a configuration are left out together. Predictions are compared with single runs
    of configurations outside the grid, whose regularity would flatter the result.
    """
    results = []
    for fraction, (name, regressor) in itertools.product(FRACTIONS, MODELS.items()):
        rows = _rows(table, fraction)
        loss = rows["loss"].to_numpy()
        tested = (rows["design"] != "grid").to_numpy()
        alive = live(rows["loss"], rows["base_loss"].median()).to_numpy() & tested
        predicted = _cross_validated(regressor, rows, tier(tier_name).space)
        error = np.abs(predicted - loss)[alive]
        results.append(
            {
                "fraction": fraction,
                "model": name,
                "runs": len(rows),
                "tested": int(tested.sum()),
                "live": int(alive.sum()),
                "median_absolute_error": float(np.median(error)),
                "root_mean_square_error": float(np.sqrt(np.mean(error**2))),
                "spearman_live": float(spearmanr(predicted[alive], loss[alive]).statistic),
                "spearman_all": float(spearmanr(predicted[tested], loss[tested]).statistic),
            }
        )
    return results


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """Format one line per fraction and model."""
    lines = [
        "| fraction | model | runs | tested (live) | median error, live | "
        "root mean square, live | Spearman, live | Spearman, all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['fraction']:.0%} | {r['model']} | {r['runs']} | {r['tested']} ({r['live']}) | "
        f"{r['median_absolute_error']:.3f} | {r['root_mean_square_error']:.3f} | "
        f"{r['spearman_live']:.3f} | {r['spearman_all']:.3f} |"
        for r in results
    ]
    return "\n".join(lines)


def _cross_validated(regressor: Regressor, rows: pandas.DataFrame, space: Space) -> np.ndarray:
    inputs = _points(space, tables.configurations(rows))
    groups = rows.groupby(list(PARAMS)).ngroup().to_numpy()
    folds = GroupKFold(N_FOLDS, shuffle=True, random_state=0)
    predicted = np.full(len(rows), np.nan)
    for train, test in folds.split(inputs, groups=groups):
        floor = _floor(rows.iloc[train])
        predict = regressor(inputs[train], _target(rows.iloc[train], floor))
        predicted[test] = floor + np.exp(predict(inputs[test]))
    return predicted


def _points(space: Space, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Map each hyperparameter to [0, 1] on its own scale, (m, 5)."""
    searched = SearchSpace(space)
    return searched.features(searched.to_unit(configurations))


def _gp_predict(make_kernel: MakeKernel) -> Regressor:
    def regressor(inputs: np.ndarray, target: np.ndarray) -> Predict:
        model = _fitted_gp(inputs, target, make_kernel)
        return lambda points: _mean(model, points)

    return regressor


def _trees_predict(estimator: Any) -> Regressor:
    return lambda inputs, target: estimator.fit(inputs, target).predict


class MixingKernel(Kernel):
    """Matern-5/2 of |W (x - x')| with a learned square matrix W.

    Every direction, not only every axis, has a lengthscale (Vivarelli and Williams 1999,
    Discovering Hidden Features with Gaussian Processes Regression). On log scales, the product of
    two hyperparameters is a direction.

    Args:
        n_dims: dimensions of the inputs.
    """

    def __init__(self, n_dims: int) -> None:
        super().__init__()
        self._radial = MaternKernel(nu=2.5)
        self._radial.lengthscale = 1.0
        self._radial.raw_lengthscale.requires_grad_(False)
        self.register_parameter("mixing", torch.nn.Parameter(2 * torch.eye(n_dims).double()))

    def forward(self, x1: torch.Tensor, x2: torch.Tensor, **options: Any) -> torch.Tensor:
        """Compute the covariances of (..., n, n_dims) and (..., m, n_dims), (..., n, m)."""
        return self._radial.forward(x1 @ self.mixing.T, x2 @ self.mixing.T, **options)


def _axis_kernel(n_dims: int) -> Kernel:
    return MaternKernel(nu=2.5, ard_num_dims=n_dims)


MODELS: dict[str, Regressor] = {
    "Gaussian process, any direction (taken)": _gp_predict(MixingKernel),
    "Gaussian process, along the axes": _gp_predict(_axis_kernel),
    "extra trees": _trees_predict(ExtraTreesRegressor(500, random_state=0)),
    "gradient boosting": _trees_predict(HistGradientBoostingRegressor(random_state=0)),
}


def _gp(inputs: np.ndarray, target: np.ndarray, make_kernel: MakeKernel) -> SingleTaskGP:
    return SingleTaskGP(
        torch.from_numpy(inputs),
        torch.from_numpy(target)[:, None],
        covar_module=ScaleKernel(make_kernel(inputs.shape[1])),
        outcome_transform=Standardize(1),
    )


def _fitted_gp(inputs: np.ndarray, target: np.ndarray, make_kernel: MakeKernel) -> SingleTaskGP:
    model = _gp(inputs, target, make_kernel)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def _mean(model: SingleTaskGP, points: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.posterior(torch.from_numpy(points)).mean[:, 0])


def _target(rows: pandas.DataFrame, floor: float) -> np.ndarray:
    return np.log(rows["loss"].to_numpy() - floor)


def _floor(rows: pandas.DataFrame) -> float:
    lowest = float(rows["loss"].min())
    return lowest - FLOOR * (float(rows["base_loss"].median()) - lowest)


def _rows(table: pandas.DataFrame, fraction: float) -> pandas.DataFrame:
    """Return the runs of a fraction that have a loss."""
    return table[(table["fraction"] == fraction) & table["loss"].notna()]


def _digest(rows: pandas.DataFrame) -> str:
    """Hash the runs that the surrogate was fitted to, and their order."""
    return hashlib.sha256("".join(rows["run_id"]).encode()).hexdigest()[:16]


def _path(tier_name: str) -> Path:
    return tables.FOLDER / f"{tier_name}-surrogates.json"


def main() -> None:
    """Fit and save, measure the errors and save them, or print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tier", choices=TIERS, default="cpu")
    parser.add_argument("--fit", action="store_true", help="fit anew and stop")
    parser.add_argument("--report", action="store_true", help="print the errors kept and stop")
    arguments = parser.parse_args()
    path = tables.RESULTS / f"surrogates-{arguments.tier}.json"
    table = tables.read(tables.FOLDER / f"{arguments.tier}.parquet")
    if arguments.fit:
        fit(table, arguments.tier)
        return
    if not arguments.report:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(errors(table, arguments.tier), indent=1) + "\n")
    print(report(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
