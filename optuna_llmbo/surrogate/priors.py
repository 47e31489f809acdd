"""Priors of the surrogate's hyperparameters."""

from __future__ import annotations

import math

from gpytorch.priors import LogNormalPrior
import torch


def log_normal(median: float, standard_deviation: float) -> LogNormalPrior:
    """A log-normal prior, in float64 whatever torch's default dtype is.

    Args:
        median: of the variable.
        standard_deviation: of its logarithm.
    """
    numbers = (math.log(median), standard_deviation)
    return LogNormalPrior(*(torch.tensor(number, dtype=torch.float64) for number in numbers))
