from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.prediction import fit as fits
from benchmarks.prediction import measures
from benchmarks.prediction import problems
from benchmarks.prediction import texts
from benchmarks.prediction.fit import Fit
from benchmarks.prediction.problems import Problem
from benchmarks.prediction.variants import Text
from benchmarks.prediction.variants import Variant
from benchmarks.torch_state import isolated_torch
from optuna_llmbo.surrogate import choices
from optuna_llmbo.surrogate import covariance as covariances
from optuna_llmbo.surrogate import text_view as text_views
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views
from optuna_llmbo.surrogate.targets import Scale


pytestmark = pytest.mark.usefixtures("one_thread", "tiny")

N_OBSERVED = 16
LAYOUT = Layout(Inputs(3), k=4, has_gaps=False, n_sources=0)


def scores(problem: Problem) -> np.ndarray:
    values = problem.values[problems.split(N_OBSERVED, 0)[0]]
    return Scale.of(values, "winsorize").scores(values)


def fit(problem: Problem, **changes: Any) -> Fit:
    variant = Variant(**changes)
    embedding = texts.embed(Text(), problem)
    parts = problems.split(N_OBSERVED, 0)
    return fits.fit(variant, problem, *parts, scores(problem), embedding)


@pytest.mark.parametrize("kernel", ["sum", "text", "numeric"])
def test_the_base_is_the_surrogate_as_it_is_shipped(problem: Problem, kernel: Any) -> None:
    mean, deviation = fit(problem, kernel=kernel).predict()
    numeric = torch.from_numpy(problem.numeric(derived=True))
    known, unknown = (
        Views(numeric[some], texts.read(Text(), problem, some))
        for some in problems.split(N_OBSERVED, 0)
    )
    ablation = Ablation(train_token=False, train_projection=False)
    with isolated_torch(seed=0):
        shipped = fit_surrogate(
            known,
            torch.from_numpy(scores(problem)),
            kernel,
            problem.inputs(derived=True),
            unknown,
            ablation,
        )
    with torch.no_grad():
        posterior = shipped.model.posterior(shipped.features(unknown), observation_noise=True)
    # the text's axes have other signs, and the fit ends at a tolerance
    np.testing.assert_allclose(mean, posterior.mean[:, 0].numpy(), atol=1e-3)
    np.testing.assert_allclose(deviation, posterior.variance[:, 0].sqrt().numpy(), atol=1e-3)


def kernel_matrix(variant: Variant) -> np.ndarray:
    Z = torch.from_numpy(np.random.default_rng(0).random((5, 9)))
    with torch.no_grad():
        return fits.kernel_of(variant, LAYOUT).to(torch.float64)(Z).to_dense().numpy()


def test_kernels() -> None:
    whole = Variant(kernel="sum")
    numbers = kernel_matrix(Variant(kernel="numeric"))
    weight = covariances._TEXT_WEIGHT_MEDIAN
    second = kernel_matrix(whole) - numbers
    np.testing.assert_allclose(second, weight * kernel_matrix(Variant(kernel="text")))
    # before they are fitted, all lengthscales are the same
    np.testing.assert_allclose(kernel_matrix(Variant(second="ard")) - numbers, second)
    np.testing.assert_allclose(
        kernel_matrix(Variant(second="numbers")) - numbers, weight * numbers, atol=1e-12
    )
    text = np.random.default_rng(0).random((5, 9))[:, 3:7]
    linear = kernel_matrix(Variant(kernel="text", second="linear"))
    np.testing.assert_allclose(linear, text @ text.T)
    np.testing.assert_allclose(
        kernel_matrix(Variant(second="linear")) - numbers, weight * linear, atol=1e-12
    )


def test_the_lengthscale_prior(problem: Problem) -> None:
    names = ("_LENGTHSCALE_MEDIAN", "LENGTHSCALE_STANDARD_DEVIATION")
    before = tuple(getattr(covariances, name) for name in names)
    fitted = fit(problem, kernel="numeric", lengthscale=(30.0, 0.1))
    matern = fitted.model.covar_module.base_kernel
    assert float(matern.lengthscale.detach().min()) > 20
    assert tuple(getattr(covariances, name) for name in names) == before
    assert vars(choices)["LENGTHSCALE_STANDARD_DEVIATION"] == before[1]
    same = fit(problem, kernel="numeric", lengthscale=before).predict()
    np.testing.assert_array_equal(same, fit(problem, kernel="numeric").predict())


def test_values_are_put_back_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError), fits.replaced(text_views, _STEPS=1):
        assert text_views._STEPS == 1
        raise ZeroDivisionError
    assert text_views._STEPS != 1
    with pytest.raises(AttributeError), fits.replaced(text_views, _no_such_name=1):
        pass


@pytest.mark.parametrize(("token", "projection"), [(True, False), (False, True), (True, True)])
def test_training_that_nothing_holds_fits_the_observed_better(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, token: bool, projection: bool
) -> None:
    monkeypatch.setattr(fits, "FREE_STEPS", 30)
    before = dict(vars(text_views))
    trained = {"train_token": token, "train_projection": projection, "kernel": "text"}
    as_is, held, free = (
        fit(problem, **options)
        for options in ({"kernel": "text"}, trained, trained | {"free": True})
    )
    densities = [measures.training(f.model)["training_nlpd"] for f in (as_is, held, free)]
    assert free.moved and not as_is.moved
    assert densities[2] < min(densities[:2]) - 0.05
    assert vars(text_views) == before


def test_the_control_reads_nothing(problem: Problem) -> None:
    parts = problems.split(N_OBSERVED, 0)
    variant = Variant(second="numbers")
    fitted = fits.fit(variant, problem, *parts, scores(problem), embedding=None)
    assert fitted.others.shape[1] == 2 + 2
    assert np.isfinite(fitted.predict()).all()
