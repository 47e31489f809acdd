from __future__ import annotations

import math
from pathlib import Path
import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr
import torch
from torch import Tensor

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.surrogate import process
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.covariance import KERNELS
from optuna_llmbo.surrogate.covariance import scaled_matern
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Surrogate
from optuna_llmbo.surrogate.process import Views
from optuna_llmbo.surrogate.targets import Scale


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Known: nothing.\n")


def views(encoder: Encoder, n: int, seed: int) -> Views:
    numeric = np.random.default_rng(seed).random((n, 2))
    lines = [(f"x = {x:.4g}\n", f"y = {y:.4g}\n") for x, y in numeric]
    return Views(torch.from_numpy(numeric), encoder.read(lines))


def standardized(values: np.ndarray) -> Tensor:
    return torch.from_numpy(Scale.of(values, "winsorize").scores(values))


def smooth(numeric: Tensor) -> Tensor:
    return standardized((torch.sin(3 * numeric[:, 0]) + numeric[:, 1]).numpy())


def fit(
    observed: Views, targets: Tensor, kernel: KernelName = "numeric", others: Views | None = None
) -> Surrogate:
    inputs = Inputs(observed.numeric.shape[1])
    return fit_surrogate(observed, targets, kernel, inputs, others or observed, Ablation())


def moments(surrogate: Surrogate, numeric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation at complete runs of this study."""
    with torch.no_grad():
        features = surrogate.features(Views(torch.from_numpy(numeric)))
        posterior = surrogate.model.posterior(features)
    return posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()


@pytest.mark.parametrize("kernel", KERNELS)
def test_posterior_at_and_between_the_data(encoder: Encoder, kernel: KernelName) -> None:
    observed, others = views(encoder, 24, seed=0), views(encoder, 12, seed=1)
    surrogate = fit(observed, smooth(observed.numeric), kernel, others)
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
    numeric = fit(observed, y, "numeric", others)
    assert numeric.text_view is None
    assert numeric.features(Views(others.numeric)).shape == (8, 2 + 2)
    text = fit(observed, y, "text", others)
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
    model = process.fit_process(x, y, lambda: scaled_matern(range(2), ard=True, weight_median=1.0))
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


def test_columns_are_numbers_text_gap_and_source(encoder: Encoder) -> None:
    read, others = views(encoder, 6, seed=0), views(encoder, 8, seed=1)
    gap = torch.tensor([0, 0, 0.5, 0.25, 0, 0], dtype=torch.float64)
    source = torch.tensor([0, 0, 0, 0, 1, 1], dtype=torch.float64)
    observed = Views(read.numeric, read.reading, gap, source)
    surrogate = fit(observed, smooth(read.numeric), "sum", others)
    assert surrogate.text_view is not None and read.reading is not None
    with torch.no_grad():
        text = surrogate.text_view(read.reading)
    expected = torch.cat([read.numeric, text, gap[:, None], source[:, None]], dim=1)
    torch.testing.assert_close(surrogate.observed, expected)
    # what is not said is a complete run of this study
    assert (surrogate.features(others)[:, -2:] == 0).all()


def test_noise_is_recovered() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((80, 1))
    y = np.sin(6 * x[:, 0]) + rng.normal(0, 0.4, 80)
    scale = y.std()
    targets = torch.from_numpy((y - y.mean()) / scale)
    found = fit(Views(torch.from_numpy(x)), targets)
    assert found.noise * scale**2 == pytest.approx(0.16, rel=0.4)


def test_a_deterministic_objective_has_next_to_no_noise() -> None:
    x = np.random.default_rng(0).random((40, 2))
    assert fit(Views(torch.from_numpy(x)), smooth(torch.from_numpy(x))).noise < 1e-3


def bumps(x: np.ndarray) -> np.ndarray:
    """A narrow good region and a broad one not so good."""
    near = np.exp(-(((x - [0.75, 0.7]) / 0.15) ** 2).sum(axis=1))
    values: np.ndarray = 2 * near + np.exp(-(((x - [0.2, 0.3]) / 0.3) ** 2).sum(axis=1))
    return values


def stopped_early(n_complete: int, n_pruned: int, seed: int) -> tuple[np.ndarray, ...]:
    """Numbers, targets and gaps of runs; what is guessed of the pruned ones is a bit off."""
    rng = np.random.default_rng(seed)
    x = rng.random((n_complete + n_pruned, 2))
    gaps = np.repeat([0.0, 0.75], [n_complete, n_pruned])
    off = 0.4 * np.sin(5 * x[:, 0] + 4 * x[:, 1])
    return x, bumps(x) + gaps * off, gaps


def informed_and_alone(seed: int) -> tuple[float, float]:
    """Rank correlation with the truth near good pruned runs, with their help and without."""
    n = 8
    x, values, gaps = stopped_early(n, 50, seed)
    targets = standardized(values)
    good = x[np.argsort(-bumps(x))[:15]]
    near = np.clip(good + np.random.default_rng(seed + 99).normal(0, 0.08, good.shape), 0, 1)
    with_pruned = fit(Views(torch.from_numpy(x), gap=torch.from_numpy(gaps)), targets)
    without = fit(Views(torch.from_numpy(x[:n])), targets[:n])
    informed, alone = (
        float(spearmanr(moments(surrogate, near)[0], bumps(near)).statistic)
        for surrogate in (with_pruned, without)
    )
    return informed, alone


def test_pruned_trials_say_where_complete_ones_would_be_good() -> None:
    informed, alone = np.array([informed_and_alone(seed) for seed in range(5)]).T
    assert informed.min() > 0.75
    assert (informed > alone).all()
    assert np.median(informed - alone) > 0.2


def test_an_early_end_is_trusted_less_than_a_complete_run() -> None:
    x, values, gaps = stopped_early(25, 25, seed=0)
    surrogate = fit(Views(torch.from_numpy(x), gap=torch.from_numpy(gaps)), standardized(values))
    _, deviation = moments(surrogate, x)
    complete, pruned = deviation[gaps == 0], deviation[gaps > 0]
    assert np.median(pruned) > 2 * np.median(complete)
    # of the early end itself there is no such doubt
    with torch.no_grad():
        variance = surrogate.model.posterior(surrogate.observed).variance[:, 0].numpy()
    assert np.median(np.sqrt(variance[gaps > 0])) < 0.5 * np.median(pruned)


@pytest.mark.parametrize("constant", [-0.7, 0.7])
def test_constant_targets_do_not_end_the_fit(constant: float) -> None:
    """The likelihood drives the weight to 0, where its prior's support ends; the prior keeps it
    away. The process then says the constant everywhere, and is surer of it near the data."""
    x = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
    targets = torch.full((12,), constant, dtype=torch.float64)
    model = process.fit_process(
        x, targets, lambda: scaled_matern(range(1), ard=True, weight_median=1)
    )
    new = torch.tensor([[0.05], [0.5], [4.0]], dtype=torch.float64)
    with torch.no_grad():
        found = model.posterior(new)
    weight = model.covar_module.outputscale.item()
    assert 0 < weight < 0.1
    np.testing.assert_allclose(found.mean[:, 0].numpy(), constant, atol=1e-3)
    near, inside, far = found.variance[:, 0].tolist()
    assert max(near, inside) < 0.01 * far < 0.01 * weight


def test_equal_targets_leave_what_was_not_tried_uncertain() -> None:
    """They do not shrink the variance, which the surrogate starts with."""
    numeric = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    surrogate = fit(Views(numeric), torch.zeros(12, dtype=torch.float64))
    far = torch.full((1, 3), 3.0, dtype=torch.float64)
    with torch.no_grad():
        sd = [
            float(surrogate.model.posterior(surrogate.features(Views(at))).variance.sqrt().mean())
            for at in (numeric, far)
        ]
    assert sd[0] < 0.2 and sd[1] > 0.8


def test_constant_targets_of_several_studies_do_not_end_the_fit() -> None:
    x = torch.from_numpy(np.random.default_rng(0).random((12, 2)))
    gap = torch.tensor([0.0, 0.5] * 3 + [0.0] * 6, dtype=torch.float64)
    source = torch.tensor([0.0] * 6 + [1.0] * 6, dtype=torch.float64)
    targets = torch.zeros(12, dtype=torch.float64)
    surrogate = fit(Views(x, gap=gap, source=source), targets)
    mean, deviation = moments(surrogate, x.numpy())
    np.testing.assert_allclose(mean, 0.0, atol=1e-3)
    assert np.isfinite(deviation).all()


def test_a_failed_fit_says_so() -> None:
    bad = torch.full((4, 1), math.nan, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SurrogateFitError, match="could not be fitted to 4 trials"):
            fit(Views(bad), torch.arange(4.0, dtype=torch.float64))
