"""The acquisition functions against references that share no code with them.

Log expected improvement has a closed form. Its noisy form, and that of several objectives, have
none where observations are noisy: there the references average over draws from the joint
posterior, which numpy computes from the hyperparameters alone (Rasmussen & Williams 2006, eqs.
2.22 to 2.24 and 4.17). Without noise both have one.

BoTorch's functions are smooth versions of what the references compute, and see few quasi-random
samples. Before the logarithm is taken, a scrambled Sobol sequence is an unbiased sample: so means
over seeds are compared, and the two standard errors set the tolerance. Smoothing adds a bias that
no number of seeds takes away. The ramp at zero improvement is 1e-6 wide, far below what is
compared here; an indicator of feasibility is a sigmoid 1e-3 wide, beside constraint values with a
standard deviation above 0.1; the sides of a hypervolume are minima that are off by up to
log(2) / 100 each, and there are two. `SMOOTHING`, a share of the value, allows for these.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.likelihoods import GaussianLikelihood
import mpmath
import numpy as np
import pytest
from scipy.stats import norm
import torch
from torch.nn.functional import pad

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionInputs
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.acquisition import make_scorer
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.feasibility import fit_constraints
from optuna_llmbo.surrogate.posterior import Posterior
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views


X = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
Y = -((X[:, 0] - 0.6) ** 2)
PLACES = torch.linspace(0, 1, 41, dtype=torch.float64)
CANDIDATES = pad(PLACES[:, None], (0, 2))  # no gap, this study
NONE = CANDIDATES[:0]

SMOOTHING = 0.015
N_SEEDS = 60
N_DRAWS = 100_000


def situation(pending: torch.Tensor = NONE, over: float | None = None) -> AcquisitionInputs:
    y = (Y - Y.mean()) / Y.std()
    surrogate = fit_surrogate(Views(X), y, "numeric", Inputs(1), Views(X), Ablation())
    constraints = {} if over is None else {"c": X[:, 0].numpy() - over}
    return AcquisitionInputs(
        objectives=[Posterior(surrogate.model)],
        observed=surrogate.observed,
        targets=y[:, None],
        pending=pending,
        constraints=[
            Posterior(limit)
            for limit in fit_constraints(
                surrogate.observed, Inputs(1), constraints, torch.zeros(0, 0)
            )
        ],
    )


def test_log_ei_is_log_expected_improvement() -> None:
    here = situation()
    scores = make_scorer(here, "log_ei", seed=0)(CANDIDATES)
    with torch.no_grad():
        posterior = here.objectives[0].process.posterior(CANDIDATES)
    for i in (0, 17, 40):
        mean, deviation = float(posterior.mean[i, 0]), math.sqrt(float(posterior.variance[i, 0]))
        z = (mpmath.mpf(mean) - float(here.targets.max())) / deviation
        ei = deviation * (mpmath.npdf(z) + z * mpmath.ncdf(z))
        assert float(scores[i]) == pytest.approx(float(mpmath.log(ei)), rel=1e-4)


# References by numpy.


def matern(process: SingleTaskGP, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The prior covariance of a process in one parameter, (n, m)."""
    scale, kernel = process.covar_module, process.covar_module.base_kernel
    r = math.sqrt(5) * np.abs(a[:, None] - b[None, :]) / kernel.lengthscale.item()
    return scale.outputscale.item() * (1 + r + r**2 / 3) * np.exp(-r)


def posterior(process: SingleTaskGP, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a process at points x, (n,) and (n, n)."""
    at = process.train_inputs[0][:, 0].numpy()
    mean = float(process.mean_module.constant.detach())
    among = matern(process, at, at) + process.likelihood.noise.item() * np.eye(len(at))
    between = matern(process, at, x)
    weights = np.linalg.solve(among, between)
    return (
        mean + weights.T @ (process.train_targets.numpy() - mean),
        matern(process, x, x) - between.T @ weights,
    )


def draw(process: SingleTaskGP, x: np.ndarray, seed: int) -> np.ndarray:
    """Joint draws at points x, (N_DRAWS, n)."""
    mean, covariance = posterior(process, x)
    root = np.linalg.cholesky(covariance + 1e-8 * np.eye(len(x)))
    return mean + np.random.default_rng(seed).standard_normal((N_DRAWS, len(x))) @ root.T


def hypervolume(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Area that points dominate beyond a reference point, larger being better: (n, m, 2) -> (n,).

    A staircase: from the right, each step as high as the best so far.
    """
    above = np.maximum(points - reference, 0.0)
    order = np.argsort(-above[:, :, 0], axis=1)
    u, v = (np.take_along_axis(above[:, :, i], order, axis=1) for i in (0, 1))
    widths = u - np.pad(u, ((0, 0), (0, 1)))[:, 1:]
    return np.einsum("nm,nm->n", widths, np.maximum.accumulate(v, axis=1))


def gains(here: AcquisitionInputs, candidates: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """What candidates are expected to add, and the standard error of it, (m,) each."""
    points = torch.cat([here.observed, here.pending, candidates])[:, 0].numpy()
    n, m = len(points) - len(candidates), len(candidates)
    models = [part.process for part in here.objectives]
    values = np.stack([draw(part, points, seed) for seed, part in enumerate(models)], axis=2)
    feasible = np.ones(values.shape[:2], dtype=bool)
    for seed, part in enumerate(here.constraints, start=9):
        feasible &= draw(part.process, points, seed) <= 0
    if len(models) == 1:
        best = np.where(feasible[:, :n], values[:, :n, 0], -np.inf).max(axis=1)
        assert np.isfinite(best).all()  # with nothing feasible there is nothing to improve on
        found = np.maximum(values[:, n:, 0] - best[:, None], 0.0)
    else:
        front = here.targets.numpy()
        front = front[[not ((front > one).all(axis=1)).any() for one in front]]
        worst, top = front.min(axis=0), front.max(axis=0)
        reference = worst - 0.1 * (top - worst)
        values = np.where(feasible[:, :, None], values, reference)
        before = hypervolume(values[:, :n], reference)
        with_one = [values[:, [*range(n), n + j]] for j in range(m)]
        found = np.stack([hypervolume(some, reference) - before for some in with_one], axis=1)
    found = found * feasible[:, n:]
    return found.mean(axis=0), found.std(axis=0) / math.sqrt(N_DRAWS)


def process(x: np.ndarray, y: np.ndarray, noise: float, lengthscale: float) -> SingleTaskGP:
    """A process of one parameter with hyperparameters that are given, and not fitted."""
    kernel = scaled_matern(range(1), ard=True, weight_median=1.0).to(torch.float64)
    kernel.outputscale, kernel.base_kernel.lengthscale = 1.3, lengthscale
    likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-9)).to(torch.float64)
    likelihood.noise = noise
    features, targets = pad(torch.from_numpy(x)[:, None], (0, 2)), torch.from_numpy(y)[:, None]
    return SingleTaskGP(
        features, targets, likelihood=likelihood, covar_module=kernel, outcome_transform=None
    ).eval()


def noisy(pending: Sequence[float], over: float | None, k: int) -> AcquisitionInputs:
    """A study of one objective or two whose best values are in doubt."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 5)
    y = np.stack([-4 * (x - 0.6) ** 2, -4 * (x - 0.2) ** 2], axis=1)[:, :k] + 0.8
    y = y + rng.normal(0, 0.3, y.shape)
    parts = [process(x, one, 0.2, 0.25) for one in y.T]
    limits = [] if over is None else [process(x, 2 * (x - over), 0.05, 0.25)]
    waiting = torch.tensor(pending, dtype=torch.float64)[:, None]
    return AcquisitionInputs(
        objectives=[Posterior(part) for part in parts],
        observed=parts[0].train_inputs[0],
        targets=torch.from_numpy(y),
        pending=pad(waiting, (0, 2)),
        constraints=[Posterior(limit) for limit in limits],
    )


@pytest.mark.parametrize("k", [1, 2], ids=["improvement", "hypervolume"])
@pytest.mark.parametrize("over", [None, 0.6], ids=["free", "constrained"])
@pytest.mark.parametrize("pending", [[], [0.55, 0.85]], ids=["idle", "busy"])
def test_noisy_improvement_is_the_mean_over_draws(
    pending: list[float], over: float | None, k: int
) -> None:
    """Fails without pending points, without constraints, with another reference point, with the
    best observed value in place of the best of a draw."""
    here = noisy(pending, over, k)
    candidates = pad(torch.tensor([[0.37], [0.65]], dtype=torch.float64), (0, 2))
    expected, error = gains(here, candidates)
    scores = torch.stack(
        [make_scorer(here, "log_nei", seed=seed)(candidates) for seed in range(N_SEEDS)]
    )
    found = scores.exp().numpy()
    tolerance = np.hypot(error, found.std(axis=0) / math.sqrt(N_SEEDS))
    assert (tolerance < 0.07 * expected).all()  # or the next line would say nothing
    assert (abs(found.mean(axis=0) - expected) < 3 * tolerance + SMOOTHING * expected).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_noisy_improvement_without_noise_is_expected_improvement(seed: int) -> None:
    """By Jones, Schonlau & Welch 1998, eq. 15. Each of 128 quasi-random samples of one dimension
    stands for a share of the normal distribution, so that one seed is enough where improvement is
    no rare event."""
    x = np.linspace(0, 1, 5)
    y = np.array([-1.0, 0.3, 0.1, 0.5, -0.6])
    exact = process(x, y, 1e-8, 0.25)
    here = AcquisitionInputs(
        objectives=[Posterior(exact)],
        observed=exact.train_inputs[0],
        targets=exact.train_targets[:, None],
        pending=NONE,
        constraints=[],
    )
    at = np.array([0.1, 0.36, 0.6, 0.7, 0.85])
    mean, covariance = posterior(exact, at)
    z = (mean - y.max()) / (deviation := np.sqrt(np.diag(covariance)))
    expected = np.log(deviation * (norm.pdf(z) + z * norm.cdf(z)))
    candidates = pad(torch.from_numpy(at)[:, None], (0, 2))
    found = make_scorer(here, "log_nei", seed=seed)(candidates).numpy()
    likely = z > -1.5
    assert likely.sum() >= 3
    np.testing.assert_allclose(found[likely], expected[likely], atol=0.03)
    analytic = make_scorer(here, "log_ei", seed=seed)(candidates).numpy()
    np.testing.assert_allclose(analytic, expected, rtol=1e-4)


# Values at points that the model knows exactly; the first two are the observed front.
FRONT = {
    "left": (0.0, 2.0),
    "right": (2.0, 0.0),
    "between": (1.0, 1.0),
    "beyond both": (3.0, 3.0),
    "above the left": (-0.1, 3.0),
    "dominated": (-0.1, 1.0),
}


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        # The reference point is (-0.2, -0.2): a tenth of the front's range below its worst. So
        # left and right dominate 2 (2.2 0.2) - 0.2 0.2 = 0.84, and (3, 3) 3.2 3.2 = 10.24.
        (None, {"between": 1.0, "beyond both": 10.24 - 0.84, "above the left": 0.1}),
        # With (1, 1) to come, its square of 1 is no longer to be gained.
        ("between", {"beyond both": 10.24 - 1.84, "above the left": 0.1}),
    ],
)
def test_hypervolume_without_noise_is_that_drawn_by_hand(
    pending: str | None, expected: dict[str, float]
) -> None:
    here = drawn(pending, limit=1e6)
    scores = dict(zip(FRONT, make_scorer(here, "log_nei", seed=0)(at_all()).tolist(), strict=True))
    found = {name: math.exp(scores[name]) for name in expected}
    assert found == pytest.approx(expected, rel=SMOOTHING)
    assert max(scores["left"], scores["right"], scores["dominated"]) < math.log(1e-3)


def test_hypervolume_of_what_is_infeasible_is_nothing() -> None:
    here = drawn(None, limit=3.5)  # of the sum of both values: all but (3, 3)
    scores = dict(zip(FRONT, make_scorer(here, "log_nei", seed=0)(at_all()).tolist(), strict=True))
    assert math.exp(scores["between"]) == pytest.approx(1.0, rel=SMOOTHING)
    assert scores["beyond both"] < math.log(1e-3)


def at_all() -> torch.Tensor:
    """The points of `FRONT`, far enough apart to say nothing of each other."""
    places = torch.linspace(0, 10, len(FRONT), dtype=torch.float64)
    return pad(places[:, None], (0, 2))


def drawn(pending: str | None, limit: float) -> AcquisitionInputs:
    """A study that has observed the first two points of `FRONT`, of a model that knows them all;
    the sum of the values must not exceed a limit."""
    points, values = at_all(), np.array(list(FRONT.values()))
    x = points[:, 0].numpy()
    waiting = [] if pending is None else [list(FRONT).index(pending)]
    over = np.clip(values.sum(axis=1) - limit, -1, 1)
    return AcquisitionInputs(
        objectives=[Posterior(process(x, one, 1e-8, 0.25)) for one in values.T],
        observed=points[:2],
        targets=torch.from_numpy(values[:2]),
        pending=points[waiting],
        constraints=[Posterior(process(x, over, 1e-8, 0.25))],
    )


@pytest.mark.parametrize("acquisition", ["log_ei", "log_nei"])
def test_the_best_candidate_is_near_the_optimum(acquisition: AcquisitionName) -> None:
    scores = make_scorer(situation(), acquisition, seed=0)(CANDIDATES)
    assert scores.shape == (41,) and torch.isfinite(scores).all()
    assert abs(float(PLACES[scores.argmax()]) - 0.6) < 0.15


def test_running_trials_push_away() -> None:
    free = make_scorer(situation(), "log_nei", seed=0)(CANDIDATES)
    top = int(free.argmax())
    pending = CANDIDATES[top : top + 1]
    busy = make_scorer(situation(pending=pending), "log_nei", seed=0)(CANDIDATES)
    assert int(busy.argmax()) != top
    assert busy[top] - busy.max() < free[top] - free.max()


def test_constraints_forbid() -> None:
    scores = make_scorer(situation(over=0.4), "log_nei", seed=0)(CANDIDATES)
    assert float(PLACES[scores.argmax()]) <= 0.45


def test_same_seed_same_scores() -> None:
    pending = torch.tensor([[0.6, 0.0, 0.0]], dtype=torch.float64)
    a, b = (
        make_scorer(situation(pending=pending), "log_nei", seed=3)(CANDIDATES) for _ in range(2)
    )
    np.testing.assert_array_equal(a.numpy(), b.numpy())
