"""Variants: the shipped ones are the surrogate's own, the others differ as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.choices import fit as fits
from benchmarks.choices import kernels
from benchmarks.choices import reading
from benchmarks.choices.fit import Prediction
from benchmarks.choices.problems import Problem
from benchmarks.choices.variants import Read
from benchmarks.choices.variants import Variant
from benchmarks.choices.variants import VARIANTS
from benchmarks.torch_state import isolated_torch
from optuna_llmbo.surrogate import choice_view
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views
from optuna_llmbo.surrogate.targets import Scale


pytestmark = pytest.mark.usefixtures("one_thread", "tiny")

INPUTS = Inputs(1, (Choices(3), Choices(16)))


def scores(problem: Problem, observed: np.ndarray) -> np.ndarray:
    values = problem.values(observed)
    return Scale.of(values, "winsorize").scores(values)


def predict(problem: Problem, variant: Variant | str, n: int = 24, seed: int = 0) -> Prediction:
    known = VARIANTS[variant] if isinstance(variant, str) else variant
    observed, others = problem.split(n, 0)
    return fits.predict(known, problem, observed, others, scores(problem, observed), seed)


@pytest.mark.parametrize("name", ["equal+main", "read"])
def test_the_shipped_ones_are_the_surrogate(problem: Problem, name: str) -> None:
    found = predict(problem, name)
    observed, others = problem.split(24, 0)
    places: tuple[Tensor | None, ...] = (None, None)
    if name == "read":
        views = reading.views(Read(), "choices-small")
        assert views is not None
        places = views.coordinates
    inputs = Inputs(1, tuple(map(Choices, (3, 16), places)))
    known, unknown = (Views(torch.from_numpy(problem.features(s))) for s in (observed, others))
    targets = torch.from_numpy(scores(problem, observed))
    with isolated_torch(seed=0):
        shipped = fit_surrogate(known, targets, "numeric", inputs, unknown, Ablation())
    with torch.no_grad():
        posterior = shipped.model.posterior(shipped.features(unknown), observation_noise=True)
    np.testing.assert_allclose(found.mean, posterior.mean[:, 0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.deviation, posterior.variance[:, 0].sqrt().numpy(), atol=1e-6)


def matrix(name: str, features: np.ndarray, inputs: Inputs = INPUTS) -> np.ndarray:
    kernel = kernels.kernel_of(name, inputs)  # type: ignore[arg-type]
    with torch.no_grad():
        whole = kernel(torch.from_numpy(features)).to_dense()
        diagonal = kernel(torch.from_numpy(features), diag=True)
    np.testing.assert_allclose(whole.diagonal(), diagonal)
    assert float(torch.linalg.eigvalsh(whole)[0]) > -1e-9
    return whole.numpy()


def test_kernels() -> None:
    # all the same; another number; another choice; another number and choice
    features = np.array([[0.0, 0, 3], [0.5, 0, 3], [0.0, 1, 3], [0.5, 1, 3]])
    product = matrix("product", features)
    np.testing.assert_allclose(product[0, 3], product[0, 1] * product[0, 2])
    equal = matrix("equal", features)
    np.testing.assert_allclose(product[0, 1:3], equal[0, 1:3])
    assert equal[0, 3] > product[0, 3] + 1e-3
    main, effects = matrix("main", features), matrix("number-effects", features)
    assert main[0, 2] < main[0, 0]
    # the number's effect is one half of the variances' prior mean at distance 0, less at 0.5
    added = effects - main
    np.testing.assert_allclose(added[0, [0, 2]], 1 / 3)
    assert 0 < added[0, 1] < 0.3 and added[0, 1] == pytest.approx(added[0, 3])
    same = Inputs(0, INPUTS.choices)
    np.testing.assert_array_equal(
        matrix("number-effects", features[:, 1:], same), matrix("main", features[:, 1:], same)
    )


def test_one_hot_columns() -> None:
    features = np.array([[0.5, 0, 3], [0.25, 2, 5], [0.25, 1, 9], [0.25, 1, 8]])
    columns = kernels.one_hot(features, [3, 16], [np.arange(3), np.array([3, 5])])
    assert columns.shape == (4, 1 + 3 + 2 + 1)
    np.testing.assert_allclose(columns[:, 0], features[:, 0])
    squared = np.square(columns[:, None] - columns[None]).sum(axis=2)
    assert squared[0, 1] == pytest.approx(1 / 16 + 2)
    assert squared[2, 3] == 0  # both are choices that nobody tried


def test_places(problem: Problem) -> None:
    whitened, as_is, everything, bare = (
        reading.views(read, "choices-small")
        for read in (Read(), Read(whitening=0.0), Read(everything=True), Read(passage=False))
    )
    assert whitened is not None and as_is is not None
    assert everything is not None and bare is not None
    assert [view is None for view in whitened.views] == [True, False]
    assert [view is None for view in everything.views] == [False, False]
    distances = []
    for views in (whitened, as_is, bare):
        places = views.coordinates[1]
        assert places is not None
        distances.append(torch.cdist(places, places))
        assert float(distances[-1].square().sum() / (16 * 15)) == pytest.approx(1.0)
    assert not torch.allclose(distances[0], distances[1], atol=1e-3)
    assert not torch.allclose(distances[0], distances[2], atol=1e-3)
    assert choice_view._WHITENING == Read().whitening
    left, right = (reading.random_coordinates(problem, seed) for seed in (0, 1))
    assert left[0] is None and left[1] is not None and right[1] is not None
    assert left[1].shape == (16, 15) and not torch.allclose(left[1], right[1])


def test_random_places_are_of_a_seed(problem: Problem) -> None:
    first, again, other = (predict(problem, "random", seed=seed).mean for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-3)


def test_the_token_moves_for_the_trained_variant_only(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice_view, "_RISE", -1.0)
    as_is, trained = (predict(problem, name) for name in ("read", "read+token"))
    assert trained.moved and not as_is.moved
    assert not np.allclose(as_is.mean, trained.mean, atol=1e-6)
    again = predict(problem, "read")
    np.testing.assert_allclose(again.mean, as_is.mean, atol=1e-9)


@pytest.mark.parametrize("name", ["one-hot", "product", "number-effects", "half", "mean"])
def test_others_predict(problem: Problem, name: str) -> None:
    found = predict(problem, name, n=48)
    truth = problem.values(problem.split(48, 0)[1])
    assert np.isfinite(found.deviation).all() and (found.deviation > 0).all()
    assert np.corrcoef(found.mean, truth)[0, 1] > 0.5
