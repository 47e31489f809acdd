"""How much the model relies on the numbers, on derived quantities and on the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
import torch

from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.insight.belief import Belief
from optuna_llmbo.insight.belief import N_REFERENCE


N_PREFIXES = 6
FEWEST = 4
"""Observed trials of the shortest prefix."""
_N_PERMUTATIONS = 8
_NOTHING = 1e-12
"""A posterior mean with less variance than this, on a scale of 1, is constant."""


@dataclass(frozen=True)
class Importance:
    """Importance of the views over the course of the study."""

    n_trials: tuple[int, ...]
    """Numbers of observed trials, in order, that the model was fitted to."""
    shares: Mapping[str, tuple[float, ...]]
    """Share of each view ("hyperparameters", "derived", "text"; those that the model has) at each
    number of trials: 0 if the posterior mean does not depend on it, 1 if on nothing else."""


def importance_of(belief: Belief) -> Importance | None:
    """Refit to the first few trials, to more, to all; permute one view at a time.

    With f the posterior mean, Z a sample of configurations from all over the space and Z' the same
    with one view's columns exchanged between configurations, E[(f(Z) - f(Z'))^2] / (2 Var f(Z)):
    Jansen's estimator of the total Sobol index (Jansen 1999, Computer Physics Communications 117).

    Limits: the views are functions of each other, so a permuted one contradicts the others. The
    model is evaluated where no configuration lies, shares need not sum to 1 and may exceed it, and
    what two views say alike is divided among them by the fit.

    Returns:
        None if there are too few trials.
    """
    n = belief.known.history.n_observed
    if n < FEWEST:
        return None
    points = belief.sample(N_REFERENCE)
    sizes = sorted({round(size) for size in np.linspace(FEWEST, n, N_PREFIXES)})
    found = {}
    for size in sizes:
        fitted = belief if size == n else _fitted_to(belief, size)
        if fitted is not None:
            found[size] = view_shares(fitted, points)
    names = {name: None for shares in found.values() for name in shares}
    return Importance(
        tuple(found),
        {name: tuple(shares.get(name, 0.0) for shares in found.values()) for name in names},
    )


def _fitted_to(belief: Belief, size: int) -> Belief | None:
    """Fit the same model to the first trials; None if it cannot be fitted."""
    try:
        return belief.fitted_to(replace(belief.known, history=belief.known.history.first(size)))
    except SurrogateFitError:
        return None


def view_shares(belief: Belief, points: np.ndarray) -> dict[str, float]:
    """The share of each view in one model's posterior mean: see `importance_of`.

    Args:
        belief: the fitted model.
        points: (m, d) the sample.
    """
    features = belief.model.features(points)
    mean = belief.mean_at(features)
    variance = float(mean.var())
    if variance < _NOTHING:
        return dict.fromkeys(belief.views, 0.0)
    rng = np.random.default_rng(belief.known.seed)
    orders = [torch.from_numpy(rng.permutation(len(points))) for _ in range(_N_PERMUTATIONS)]
    shares = {}
    for name, columns in belief.views.items():
        changes = []
        for order in orders:
            permuted = features.clone()
            permuted[:, list(columns)] = features[order][:, list(columns)]
            changes.append(float(np.square(belief.mean_at(permuted) - mean).mean()))
        shares[name] = float(np.mean(changes)) / (2 * variance)
    return shares
