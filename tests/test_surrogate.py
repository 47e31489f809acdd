from __future__ import annotations

import math
from pathlib import Path
import warnings

from gpytorch.mlls import LeaveOneOutPseudoLikelihood
import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo import llm as llms
from optuna_llmbo import surrogate as surrogates
from optuna_llmbo import text_view as text_views
from optuna_llmbo.encoder import Encoder
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.feasibility import fit_constraints
from optuna_llmbo.surrogate import fit_surrogate
from optuna_llmbo.surrogate import KernelName
from optuna_llmbo.surrogate import KERNELS
from optuna_llmbo.surrogate import robust_standardize
from optuna_llmbo.surrogate import scaled_matern
from optuna_llmbo.surrogate import Views
from optuna_llmbo.text_view import fit_text_view
from optuna_llmbo.text_view import TextView


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(llms.load(llms.resolve(tiny_llm)), "Known: nothing.\n")


def views(encoder: Encoder, n: int, seed: int) -> Views:
    numeric = np.random.default_rng(seed).random((n, 2))
    lines = [(f"x = {x:.4g}\n", f"y = {y:.4g}\n") for x, y in numeric]
    return Views(torch.from_numpy(numeric), encoder.read(lines))


def smooth(numeric: Tensor) -> Tensor:
    values = torch.sin(3 * numeric[:, 0]) + numeric[:, 1]
    return torch.from_numpy(robust_standardize(values.numpy()))


def test_targets_are_standardized() -> None:
    y = robust_standardize(np.array([1.0, 2.0, 3.0, 4.0]))
    assert y.mean() == pytest.approx(0) and y.std() == pytest.approx(1)


def test_collapsed_runs_do_not_set_the_scale() -> None:
    live = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])
    y = robust_standardize(np.append(live, [-1e6, -math.inf]))
    assert y[7] == y[8] == y.min() < y[0]
    assert np.ptp(y[:7]) > 1.0  # the live runs are still told apart
    # a good outlier is what is looked for: it stays out
    assert robust_standardize(np.append(live, 50.0))[-1] > 2.5


@pytest.mark.parametrize("targets", [[3.0, 3.0], [math.inf, -math.inf], [5.0]])
def test_targets_without_spread_are_zero(targets: list[float]) -> None:
    np.testing.assert_array_equal(robust_standardize(np.array(targets)), 0.0)


def test_infinite_targets_are_the_ends() -> None:
    y = robust_standardize(np.array([0.0, 1.0, math.inf, -math.inf]))
    assert y[2] == y[1] and y[3] == y[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_posterior_at_and_between_the_data(encoder: Encoder, kernel: KernelName) -> None:
    observed, others = views(encoder, 24, seed=0), views(encoder, 12, seed=1)
    surrogate = fit_surrogate(observed, smooth(observed.numeric), kernel, others)
    with torch.no_grad():
        mean = surrogate.model.posterior(surrogate.features(observed)).mean[:, 0]
    correlation = np.corrcoef(mean.numpy(), smooth(observed.numeric).numpy())[0, 1]
    assert correlation > 0.6
    if kernel != "text":  # bytes of digits say little to a random model; numbers say all
        both = torch.cat([observed.numeric, others.numeric])
        truth = smooth(both)[24:].numpy()
        with torch.no_grad():
            predicted = surrogate.model.posterior(surrogate.features(others)).mean[:, 0]
        assert np.corrcoef(predicted.numpy(), truth)[0, 1] > 0.9


def test_text_is_ignored_by_the_numeric_kernel_and_numbers_by_the_text_kernel(
    encoder: Encoder,
) -> None:
    observed, others = views(encoder, 8, seed=0), views(encoder, 8, seed=1)
    y = smooth(observed.numeric)
    numeric = fit_surrogate(observed, y, "numeric", others)
    assert numeric.text_view is None
    assert numeric.features(Views(others.numeric)).shape == (8, 2)
    text = fit_surrogate(observed, y, "text", others)
    features = text.features(others)
    changed = features.clone()
    changed[:, :2] += 0.3
    with torch.no_grad():
        a, b = (text.model.posterior(f).mean for f in (features, changed))
    torch.testing.assert_close(a, b)


def test_posterior_is_that_of_the_textbook() -> None:
    """Rasmussen & Williams 2006, eqs. 2.23 and 2.24, by numpy."""
    x = torch.from_numpy(np.random.default_rng(0).random((9, 2)))
    new = torch.from_numpy(np.random.default_rng(1).random((4, 2)))
    y = smooth(x)
    model = surrogates.fit_process(x, y, scaled_matern(range(2), ard=True, weight_median=1.0))
    with torch.no_grad():
        kernel = model.covar_module
        noise = float(model.likelihood.noise)
        k = kernel(x).to_dense().numpy() + noise * np.eye(9)
        cross = kernel(new, x).to_dense().numpy()
        constant = float(model.mean_module.constant)
        mean = constant + cross @ np.linalg.solve(k, y.numpy() - constant)
        variance = np.diag(kernel(new).to_dense().numpy() - cross @ np.linalg.solve(k, cross.T))
        posterior = model.posterior(new)
    np.testing.assert_allclose(posterior.mean[:, 0].numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(posterior.variance[:, 0].numpy(), variance, atol=1e-5)


def test_noise_is_recovered() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 1))
    y = np.sin(6 * x[:, 0]) + rng.normal(0, 0.4, 80)
    scale = y.std()
    targets = torch.from_numpy((y - y.mean()) / scale)
    found = fit_surrogate(Views(torch.from_numpy(x)), targets, "numeric", Views(torch.zeros(0, 1)))
    assert found.noise * scale**2 == pytest.approx(0.16, rel=0.4)


def test_weight_prior_favours_numbers() -> None:
    covariance = surrogates._kernel("sum", p=3, k=4)
    numeric, text = covariance.kernels
    assert numeric.outputscale.item() > text.outputscale.item()
    assert list(numeric.base_kernel.active_dims) == [0, 1, 2]
    assert list(text.base_kernel.active_dims) == [3, 4, 5, 6]


def test_whitened_axes(encoder: Encoder) -> None:
    observed, others = views(encoder, 10, seed=0), views(encoder, 30, seed=1)
    assert observed.reading is not None and others.reading is not None
    view = TextView.neutral(observed.reading, others.reading)
    with torch.no_grad():
        z = torch.cat([view(observed.reading), view(others.reading)])
    covariance = (z.T @ z / len(z)).numpy()
    np.testing.assert_allclose(covariance, np.eye(view.width) / 12, atol=1e-6)


def test_fitting_the_view_never_lowers_the_leave_one_out_density(encoder: Encoder) -> None:
    observed, others = views(encoder, 16, seed=2), views(encoder, 8, seed=3)
    y = smooth(observed.numeric)
    assert observed.reading is not None and others.reading is not None
    start = TextView.neutral(observed.reading, others.reading)
    features = surrogates._features(observed, start)
    model = surrogates._fit(features, y, "text", start)
    fitted = fit_text_view(start, observed.reading, model, observed.numeric)

    def density(view: TextView) -> float:
        model.train()
        model.set_train_data(surrogates._features(observed, view), strict=False)
        loo = LeaveOneOutPseudoLikelihood(model.likelihood, model)
        with torch.no_grad():
            return float(loo(model(*model.train_inputs), model.train_targets))

    assert density(fitted) >= density(start) - 1e-9
    if fitted is not start:
        assert not torch.equal(fitted.token, start.token)


def test_token_and_projection_do_move(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stop out of the way, each step raises the penalized likelihood's direction."""
    observed, others = views(encoder, 16, seed=2), views(encoder, 8, seed=3)
    assert observed.reading is not None and others.reading is not None
    start = TextView.neutral(observed.reading, others.reading)
    model = surrogates._fit(
        surrogates._features(observed, start), smooth(observed.numeric), "text", start
    )
    moves = []
    original = text_views._penalty
    monkeypatch.setattr(
        text_views,
        "_penalty",
        lambda a, b: moves.append(b.token.detach().clone()) or original(a, b),
    )
    fit_text_view(start, observed.reading, model, observed.numeric)
    assert len(moves) >= 2 and not torch.equal(moves[0], moves[1])


def test_too_few_observations_leave_the_view_neutral(encoder: Encoder) -> None:
    observed, others = views(encoder, 3, seed=0), views(encoder, 8, seed=1)
    surrogate = fit_surrogate(observed, smooth(observed.numeric), "sum", others)
    assert surrogate.text_view is not None
    torch.testing.assert_close(surrogate.text_view.token, encoder.neutral_token())


def test_collapsed_weight_does_not_end_the_fit() -> None:
    """The prior's support is open at 0, where the weight of constant targets is driven."""
    x = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
    surrogates.fit_process(
        x, torch.zeros(12, dtype=torch.float64), scaled_matern(range(1), ard=True, weight_median=1)
    )


def test_a_failed_fit_says_so() -> None:
    bad = torch.full((4, 1), math.nan, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SurrogateFitError, match="could not be fitted to 4 trials"):
            fit_surrogate(
                Views(bad), torch.arange(4.0, dtype=torch.float64), "numeric", Views(bad)
            )


def test_constraints_keep_their_sign() -> None:
    x = torch.linspace(0, 1, 10, dtype=torch.float64)[:, None]
    over = (x[:, 0] - 0.5).numpy()
    missing = over.copy()
    missing[0] = math.nan
    failed = torch.tensor([[1.0], [0.95]], dtype=torch.float64)
    model, second, feasible = fit_constraints(x, 1, {"a": over * 1e3, "b": missing}, failed)
    with torch.no_grad():
        for fitted in (model, second):
            mean = fitted.posterior(x).mean[:, 0]
            assert mean[0] < 0 < mean[-1]
        mean = feasible.posterior(torch.tensor([[0.0], [1.0]], dtype=torch.float64)).mean[:, 0]
        assert mean[0] < mean[1]
