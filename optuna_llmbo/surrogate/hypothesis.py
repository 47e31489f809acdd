"""Whether the targets bear out what was expected before any trial.

Shapes: n observed.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from botorch.models import SingleTaskGP
import torch
from torch import Tensor

from optuna_llmbo.surrogate.likelihood import GaussianLogDensity


PRIOR_TRUST = 0.75
"""Probability, before any trial, that targets rise with what is expected."""

_SLOPE = 0.5
_SLOPE_STANDARD_DEVIATION = 0.3
"""How much targets rise, if they do: standard deviations of the target for one of the log density
over the space."""
_OFFSET_VARIANCE = 10.0
_FARTHEST = 30.0


def trust(processes: Sequence[SingleTaskGP], expected: Tensor) -> float:
    """The probability that targets are better where they were expected to be.

    Two hypotheses are weighed by the marginal likelihood (Rasmussen & Williams 2006, eq. 2.30):
    targets are a draw of the fitted process, or that and a slope along the expectation, normal
    with mean 0.5 and standard deviation 0.3. Both have an unknown offset. What is expected for
    several objectives need hold for one of them only.

    Args:
        processes: one for each objective, fitted to standardized targets; of those the first n
            are looked at.
        expected: (n,) standardized log density of where good values are expected.
    """
    ratio = max(_log_evidence_ratio(process, expected) for process in processes)
    log_odds = math.log(PRIOR_TRUST / (1 - PRIOR_TRUST)) + ratio
    return 1 / (1 + math.exp(-max(-_FARTHEST, min(_FARTHEST, log_odds))))


@torch.no_grad()
def _log_evidence_ratio(process: SingleTaskGP, expected: Tensor) -> float:
    n = len(expected)
    targets = process.train_targets[:n]
    noise = process.likelihood.noise * torch.eye(n, dtype=targets.dtype)
    without = process.covar_module(process.train_inputs[0][:n]).to_dense() + noise
    without = without + _OFFSET_VARIANCE
    along = torch.outer(expected, expected) * _SLOPE_STANDARD_DEVIATION**2
    rising = GaussianLogDensity.apply(without + along, targets - _SLOPE * expected)
    return float(rising - GaussianLogDensity.apply(without, targets))
