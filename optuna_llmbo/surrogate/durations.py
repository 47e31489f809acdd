"""How long a trial will take: a model of recorded durations.

Shapes: n observed, m candidates, p numeric features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import inputs_kernel
from optuna_llmbo.surrogate.posterior import Posterior
from optuna_llmbo.surrogate.process import fit_errors
from optuna_llmbo.surrogate.process import fit_process


_LEAST_DURATIONS = 3
_LEAST_SECONDS = 1e-3


def fit_log_seconds(
    numeric: Tensor, inputs: Inputs, seconds: np.ndarray
) -> Callable[[Tensor], np.ndarray]:
    """Fit a Gaussian process to the logarithm of durations.

    Args:
        numeric: (n, p) numeric features of the observed configurations.
        inputs: their columns.
        seconds: (n,) how long each trial took, nan where unknown.

    Returns:
        A function from numeric features (m, p) to the expected logarithm of the seconds, (m,), up
        to a constant; 0 while fewer than three durations are known or all are equal.

    Raises:
        SurrogateFitError: if the model cannot be fitted.
    """
    known = np.isfinite(seconds)
    logs = np.log(np.maximum(seconds[known], _LEAST_SECONDS))
    if len(logs) < _LEAST_DURATIONS or np.ptp(logs) == 0:
        return lambda features: np.zeros(len(features))
    sd = logs.std()
    targets = torch.from_numpy((logs - logs.mean()) / sd)
    with fit_errors(len(logs)):
        model = fit_process(
            numeric[torch.from_numpy(known)],
            targets,
            lambda: inputs_kernel(inputs),
        )

    posterior = Posterior(model)

    def log_seconds(features: Tensor) -> np.ndarray:
        with torch.no_grad():
            mean, _ = posterior.moments(features)
        return sd * np.asarray(mean.numpy())

    return log_seconds
