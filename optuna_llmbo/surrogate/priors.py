"""Priors of the surrogate's hyperparameters."""

from __future__ import annotations

import math

from gpytorch.priors import LogNormalPrior
import torch


LENGTHSCALE_STANDARD_DEVIATION = 0.7
"""Prior standard deviation of a lengthscale's logarithm. With Hvarfner et al.'s 1.7, ten trials
can choose far too long lengthscales, and the surrogate is sure of what it does not know."""
LEAST_LENGTHSCALE = 2.5e-2
"""Bound of lengthscales, in units of a parameter's range."""


def log_normal(median: float, standard_deviation: float) -> LogNormalPrior:
    """A log-normal prior, in float64 whatever torch's default dtype is.

    Args:
        median: of the variable.
        standard_deviation: of its logarithm.
    """
    numbers = (math.log(median), standard_deviation)
    return LogNormalPrior(*(torch.tensor(number, dtype=torch.float64) for number in numbers))
