"""Models of what makes a configuration infeasible: constraints and failed trials.

Shapes: n observed, p numeric features.
"""

from __future__ import annotations

from botorch.models import SingleTaskGP
import numpy as np
import torch
from torch import Tensor

from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import inputs_kernel
from optuna_llmbo.surrogate.priors import LEAST_LENGTHSCALE
from optuna_llmbo.surrogate.process import fit_errors
from optuna_llmbo.surrogate.process import fit_process


_FEASIBLE, _INFEASIBLE = -1.0, 1.0

_FAILURE_LENGTHSCALE = 0.3
"""Least lengthscale of the model of failures, in units of a parameter's range. Failures are a step
function, which shrinks a free lengthscale until each failure stands alone; but they come in
regions (too high a rate, too much memory)."""


def fit_constraints(
    features: Tensor, inputs: Inputs, constraints: dict[str, np.ndarray], failed: Tensor
) -> list[SingleTaskGP]:
    """Fit a Gaussian process on the numeric features for each constraint, feasible at or below 0.

    Trials without a score make one more: -1 where there was a score, 1 where there was none. So
    regions where trials fail are avoided, and a failure is never taken for a bad score.

    Args:
        features: (n, columns) of the observed configurations, the p numeric columns first.
        inputs: the numeric columns.
        constraints: (n,) values by name, nan where a trial did not set it.
        failed: (failed, p) numeric features of the configurations without a score.

    Raises:
        SurrogateFitError: if a model cannot be fitted.
    """
    models = []
    with fit_errors(len(features)):
        for _, values in sorted(constraints.items()):
            if np.isnan(values).all():  # set by none of the trials that are fitted to
                continue
            models.append(_fit(features, values, inputs, least_lengthscale=LEAST_LENGTHSCALE))
        if len(failed):
            rest = features.shape[1] - inputs.width
            padding = torch.zeros(len(failed), rest, dtype=features.dtype)
            both = torch.cat([features, torch.cat([failed, padding], dim=1)])
            outcome = np.repeat([_FEASIBLE, _INFEASIBLE], [len(features), len(failed)])
            models.append(_fit(both, outcome, inputs, least_lengthscale=_FAILURE_LENGTHSCALE))
    return models


def _fit(
    features: Tensor, values: np.ndarray, inputs: Inputs, least_lengthscale: float
) -> SingleTaskGP:
    """Fit to the rows with a value, scaled but not shifted: the sign matters."""
    known = ~np.isnan(values)
    finite = values[known & np.isfinite(values)]
    bound = float(np.abs(finite).max(initial=0.0)) or 1.0
    scaled = torch.from_numpy(np.clip(values[known], -bound, bound) / bound)
    return fit_process(
        features[torch.from_numpy(known)],
        scaled,
        lambda: inputs_kernel(inputs, least_lengthscale=least_lengthscale),
    )
