"""Measure how well unobserved configurations are predicted, and how well the observed are fitted.

Larger values are better throughout. Densities are negative logarithms per configuration, so lower
is better, in units of the observed targets' standard deviation; those of a transform other than
winsorizing are converted to the winsorized scale.
"""

from __future__ import annotations

from botorch.models import SingleTaskGP
import numpy as np
from scipy.stats import norm
from scipy.stats import spearmanr
import torch

from optuna_llmbo.surrogate.targets import Scale
from optuna_llmbo.surrogate.targets import TransformName


N_BEST = 10

_HALF_INTERVAL = float(norm.ppf(0.975))

_HALF_WIDTH = 0.1
"""In standard deviations: a transform has a kink at each observed target, so its slope is taken
over an interval."""


def held_out(
    mean: np.ndarray,
    deviation: np.ndarray,
    values: np.ndarray,
    observed: np.ndarray,
    transform: TransformName,
) -> dict[str, float]:
    """Measure the predictions of m configurations.

    Args:
        mean: (m,) means of the predicted scores.
        deviation: (m,) standard deviations, noise included.
        values: (m,) true values.
        observed: (n,) values that the surrogate was fitted to.
        transform: transform of the targets.

    Returns:
        "spearman", the rank correlation of prediction and truth, 0 if all predictions are the
        same; "nlpd", the negative log density of the truth; "percentile", for the 10 predicted
        best, the mean share of configurations that are truly better, 0 for the best.
    """
    same = np.ptp(mean) == 0 or np.ptp(values) == 0
    best = np.argsort(-mean, kind="stable")[:N_BEST]
    return {
        "spearman": 0.0 if same else float(spearmanr(mean, values).statistic),
        "nlpd": float(negative_log_density(mean, deviation, values, observed, transform).mean()),
        "percentile": float(np.mean(values[None, :] > values[best, None])),
    }


def negative_log_density(
    mean: np.ndarray,
    deviation: np.ndarray,
    values: np.ndarray,
    observed: np.ndarray,
    transform: TransformName,
) -> np.ndarray:
    """Compute each value's negative log density on the winsorized scale, (m,); see `held_out`.

    A value below the fence of the observed counts as the fence, as it would if observed.
    """
    scale, plain = Scale.of(observed, transform), Scale.of(observed, "winsorize")
    values = np.maximum(values, fence(observed))
    step = _HALF_WIDTH / mean_slope(plain)
    rises = scores_at(scale, values + step) - scores_at(scale, values - step)
    slopes = rises / (2 * _HALF_WIDTH)
    densities: np.ndarray = norm.logpdf(scores_at(scale, values), mean, deviation) + np.log(slopes)
    return -densities


def coverage(
    mean: np.ndarray,
    deviation: np.ndarray,
    values: np.ndarray,
    observed: np.ndarray,
    transform: TransformName,
) -> float:
    """Compute the share of values inside their 95% intervals; see `held_out` for the arguments.

    A value below the fence of the observed counts as the fence, as it would if observed.
    """
    scores = scores_at(Scale.of(observed, transform), np.maximum(values, fence(observed)))
    return float(np.mean(np.abs(scores - mean) < _HALF_INTERVAL * deviation))


def fence(observed: np.ndarray) -> float:
    """Compute Tukey's fence: lower values count as the fence (see `surrogate.targets`)."""
    low, middle = np.quantile(observed, [0.25, 0.75])
    lowest = Scale.of(observed, "winsorize").targets[0]  # the fence, if one of them is below it
    return float(min(lowest, low - 1.5 * (middle - low)))


def scores_at(scale: Scale, targets: np.ndarray) -> np.ndarray:
    """Compute scores of any targets, extrapolated at the scale's mean slope.

    `Scale.inverse` extrapolates at the slope between the two best, which may be anything.
    """
    beyond = targets - np.clip(targets, scale.targets[0], scale.targets[-1])
    return np.interp(targets, scale.targets, scale.knots) + mean_slope(scale) * beyond


def mean_slope(scale: Scale) -> float:
    """Compute the mean score per unit of the target; 1 if all targets are the same."""
    if len(scale.knots) == 1:
        return 1.0
    return float(np.ptp(scale.knots) / np.ptp(scale.targets))


def training(model: SingleTaskGP) -> dict[str, float]:
    """Compute densities of the observed targets under a process fitted to them.

    Returns:
        "training_nlpd", of all of them together: the marginal likelihood without priors
        (Rasmussen & Williams 2006, eq. 2.30); "left_out_nlpd", of each given all others, with the
        same hyperparameters (eqs. 5.10 to 5.12). On the transform's own scale.
    """
    model.train()
    with torch.no_grad():
        prior = model.likelihood(model(*model.train_inputs))
        joint = prior.log_prob(model.train_targets) / len(model.train_targets)
        residuals = (model.train_targets - prior.mean).numpy()
        precision = np.linalg.inv(prior.covariance_matrix.numpy())
    model.eval()
    variances = 1 / np.diag(precision)
    left_out = norm.logpdf(precision @ residuals * variances, scale=np.sqrt(variances))
    return {"training_nlpd": -float(joint), "left_out_nlpd": -float(left_out.mean())}
