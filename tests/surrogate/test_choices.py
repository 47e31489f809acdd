"""Distances of choices and the kernel on them, against direct formulas; and what a fit makes of
them."""

from __future__ import annotations

from functools import cache
from itertools import product
import math
from typing import Any

from botorch.models import SingleTaskGP
from gpytorch.kernels import Kernel
import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import Choices
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.choices import Matern52OfSquares
from optuna_llmbo.surrogate.choices import NumbersAndChoices
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import inputs_kernel
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.covariance import Matern52
from optuna_llmbo.surrogate.likelihood import log_posterior
from optuna_llmbo.surrogate.process import fit_process
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import fit_surrogates
from optuna_llmbo.surrogate.process import Views


def placed(n: int, k: int, seed: int) -> Tensor:
    """Random coordinates, centred, with a mean squared distance of 1."""
    rows = np.random.default_rng(seed).normal(size=(n, k))
    rows -= rows.mean(axis=0)
    return torch.from_numpy(rows / math.sqrt(2 * (rows**2).sum() / (n - 1)))


BINARY, PLAIN = Choices(2), Choices(4)
MEANT, OTHER = Choices(5, placed(5, 3, seed=0)), Choices(3, placed(3, 2, seed=1))
SPACES: dict[str, Inputs] = {
    "one": Inputs(0, (PLAIN,)),
    "binary": Inputs(1, (BINARY,)),
    "meant": Inputs(0, (MEANT,)),
    "mixed": Inputs(2, (MEANT, BINARY, OTHER, PLAIN)),
}


def points(inputs: Inputs, n: int, seed: int) -> Tensor:
    """Numbers and choices, every fourth of which is absent."""
    rng = np.random.default_rng(seed)
    columns = [rng.random((n, inputs.p))]
    for choices in inputs.choices:
        chosen = rng.integers(choices.n, size=(n, 1)).astype(np.float64)
        columns.append(np.where(rng.random((n, 1)) < 0.25, -1.0, chosen))
    return torch.from_numpy(np.hstack(columns))


def kernel_of(
    inputs: Inputs, *, main_effects: bool = True, ard: bool = True, seed: int = 0
) -> NumbersAndChoices:
    """With random hyperparameters, so that no two parts agree by chance."""
    kernel = NumbersAndChoices(
        inputs,
        ChoiceDistances(inputs.choices),
        lengthscale_median=0.7,
        least_lengthscale=0.025,
        ard=ard,
        main_effects=main_effects,
    ).to(torch.float64)
    randomize_(kernel, seed)
    return kernel


def randomize_(kernel: Kernel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in kernel.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = parameter.data + 0.7 * noise


def matern(squared: float) -> float:
    """Matern-5/2 of a squared distance (Rasmussen & Williams 2006, eq. 4.17)."""
    d = math.sqrt(5 * squared)
    return (1 + d + d**2 / 3) * math.exp(-d)


def distance(choices: Choices, weight: float, a: int, b: int) -> float:
    """Squared, of one parameter's choices; -1 is none."""
    if a == b:
        return 0.0
    different = 0.5 if -1 in (a, b) else 1.0
    if choices.coordinates is None:
        return different
    place = {-1: np.zeros(choices.coordinates.shape[1])}
    place |= dict(enumerate(choices.coordinates.numpy()))
    return float((1 - weight) * different + weight * np.square(place[a] - place[b]).sum())


def by_hand(kernel: NumbersAndChoices, inputs: Inputs, x: np.ndarray, y: np.ndarray) -> float:
    """The covariance of two points."""
    p, lengthscale = inputs.p, kernel.lengthscale.detach().numpy()[0]
    lengthscale = np.broadcast_to(lengthscale, inputs.width)
    weight = kernel.distances.weight.detach().numpy()
    squared = [
        distance(choices, weight[i], int(x[p + i]), int(y[p + i]))
        for i, choices in enumerate(inputs.choices)
    ]
    total = sum(d / s**2 for d, s in zip(squared, lengthscale[p:], strict=True))
    total += float(np.square((x[:p] - y[:p]) / lengthscale[:p]).sum())
    if not kernel._main_effects:
        return matern(total)
    joint, main, scale = (
        kernel.positive(name).detach().numpy()
        for name in ("joint_variance", "main_variance", "main_lengthscale")
    )
    effects = [v * matern(d / a**2) for v, d, a in zip(main, squared, scale, strict=True)]
    return float(joint[0] * matern(total) + sum(effects))


def evaluate(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> np.ndarray:
    with torch.no_grad():
        matrix: np.ndarray = kernel(x, y).to_dense().numpy()
    return matrix


@pytest.mark.parametrize("main_effects", [True, False])
@pytest.mark.parametrize("ard", [True, False])
@pytest.mark.parametrize("space", SPACES)
def test_the_kernel_by_hand(space: str, ard: bool, main_effects: bool) -> None:
    inputs = SPACES[space]
    kernel = kernel_of(inputs, ard=ard, main_effects=main_effects)
    x, y = points(inputs, 14, seed=1), points(inputs, 9, seed=2)
    for left, right in ((x, x), (x, y)):
        expected = [[by_hand(kernel, inputs, a, b) for b in right.numpy()] for a in left.numpy()]
        np.testing.assert_allclose(evaluate(kernel, left, right), expected, rtol=1e-9)


def test_the_weight_is_one_of_each_parameter_that_has_meaning() -> None:
    distances = ChoiceDistances(SPACES["mixed"].choices)
    assert distances.weight.tolist() == [0.5, 0.0, 0.5, 0.0]
    distances.raw_weight.data = torch.tensor([2.0, -3.0], dtype=torch.float64)
    expected = [1 / (1 + math.exp(-2)), 0, 1 / (1 + math.exp(3)), 0]
    assert distances.weight.tolist() == pytest.approx(expected)
    assert not list(ChoiceDistances((PLAIN, BINARY)).parameters())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("space", SPACES)
def test_matrices_are_symmetric_and_positive_semidefinite(space: str, seed: int) -> None:
    inputs = SPACES[space]
    kernel = kernel_of(inputs, seed=seed)
    matrix = evaluate(kernel, points(inputs, 40, seed))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


@pytest.mark.parametrize("main_effects", [True, False])
@pytest.mark.parametrize("space", SPACES)
def test_the_diagonal_is_that_of_the_matrix(space: str, main_effects: bool) -> None:
    inputs = SPACES[space]
    kernel = kernel_of(inputs, main_effects=main_effects)
    x = points(inputs, 9, seed=1)
    with torch.no_grad():
        diagonal = kernel(x, diag=True).numpy()
    np.testing.assert_allclose(diagonal, np.diag(evaluate(kernel, x)), rtol=1e-9)


def test_without_choices_it_is_the_plain_kernel() -> None:
    inputs = Inputs(3)
    kernel = kernel_of(Inputs(3, (PLAIN,)), main_effects=False)
    plain = Matern52(ard_num_dims=3, active_dims=(0, 1, 2)).to(torch.float64)
    plain.lengthscale = kernel.lengthscale.detach()[:, :3]
    x, y = points(inputs, 8, seed=0), points(inputs, 6, seed=1)
    same = (torch.cat([part, torch.zeros(len(part), 1)], dim=1) for part in (x, y))
    np.testing.assert_allclose(evaluate(kernel, *same), evaluate(plain, x, y), rtol=1e-9)
    # and where there are none, it is not there at all
    kinds = {type(module) for module in covariance("numeric", layout(inputs)).modules()}
    assert Matern52 in kinds and not {NumbersAndChoices, ChoiceDistances} & kinds


def layout(inputs: Inputs, **changes: Any) -> Layout:
    return Layout(inputs, **{"k": 0, "has_gaps": False, "n_sources": 0, **changes})


def test_only_the_whole_has_main_effects_and_all_parts_share_the_distances() -> None:
    whole = covariance("numeric", layout(SPACES["mixed"], has_gaps=True, n_sources=1))
    parts = [module for module in whole.modules() if isinstance(module, NumbersAndChoices)]
    assert [part._main_effects for part in parts] == [True, False, False]
    assert len({id(part.distances) for part in parts}) == 1
    alone = inputs_kernel(SPACES["mixed"])
    assert not any(getattr(module, "_main_effects", False) for module in alone.modules())


def test_the_prior_of_a_weight_counts_once() -> None:
    """However many parts share it: all points have the same choices, so that nothing else depends
    on it."""
    x = torch.zeros(6, 3, dtype=torch.float64)
    x[:, 1] = torch.linspace(0, 0.5, 6, dtype=torch.float64)
    x[3:, 2] = 1
    y = torch.from_numpy(np.random.default_rng(0).normal(size=6))
    whole = layout(SPACES["meant"], has_gaps=True, n_sources=1)
    model = fit_process(x, y, lambda: covariance("numeric", whole))
    (raw,) = [part for name, part in model.named_parameters() if "raw_weight" in name]
    densities = []
    for place in (0.0, 3.0):
        raw.data[:] = place
        with torch.no_grad():
            densities.append(float(log_posterior(model)()))
    assert densities[0] - densities[1] == pytest.approx((3 / 1.5) ** 2 / 2)


# The pairs that are remembered.


def test_points_that_are_asked_again_and_others_in_between() -> None:
    """Fails if pairs are remembered without a look at the points, or one of both sides."""
    inputs = SPACES["mixed"]
    kernel = kernel_of(inputs)
    x, y = points(inputs, 12, seed=0), points(inputs, 12, seed=1)
    first = evaluate(kernel, x)
    assert kernel.distances._known is not None
    across = evaluate(kernel, x, y)
    np.testing.assert_array_equal(evaluate(kernel, x), first)
    other = evaluate(kernel, y)
    np.testing.assert_array_equal(evaluate(kernel, x), first)
    np.testing.assert_array_equal(evaluate(kernel, x, y), across)
    np.testing.assert_array_equal(evaluate(kernel, y), other)
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(evaluate(kernel, x, x.clone()), first, rtol=1e-12)


def test_choices_that_move_are_where_they_moved_to() -> None:
    inputs = SPACES["mixed"]
    kernel = kernel_of(inputs)
    x = points(inputs, 12, seed=0)
    before = evaluate(kernel, x)
    moved = (placed(5, 2, seed=7), None, placed(3, 1, seed=8), None)
    kernel.distances.place(moved)
    sizes = (choices.n for choices in inputs.choices)
    elsewhere = Inputs(inputs.p, tuple(map(Choices, sizes, moved)))
    fresh = kernel_of(elsewhere)
    after = evaluate(kernel, x)
    np.testing.assert_array_equal(after, evaluate(fresh, x))
    assert not np.allclose(after, before)
    kernel.distances.place([choices.coordinates for choices in inputs.choices])
    np.testing.assert_array_equal(evaluate(kernel, x), before)


# Gradients.


def test_the_gradient_of_the_correlation() -> None:
    squared = torch.rand(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(Matern52OfSquares.apply, squared.requires_grad_())
    nowhere = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    Matern52OfSquares.apply(nowhere).sum().backward()
    assert nowhere.grad is not None  # finite, and the limit from the right
    np.testing.assert_allclose(nowhere.grad.numpy(), -5 / 6)


def test_the_gradients_of_coordinates() -> None:
    inputs = SPACES["meant"]
    kernel = kernel_of(inputs)
    x = points(inputs, 10, seed=0)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 10)))

    def value(coordinates: Tensor) -> Tensor:
        kernel.distances.place([coordinates])
        return (kernel(x).to_dense() * weights).sum()

    start = placed(5, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(value, (start,))


def test_a_look_without_gradients_does_not_take_them_away() -> None:
    """Fails if the pairs that were found then are taken where a gradient is asked for."""
    inputs = SPACES["meant"]
    kernel, x = kernel_of(inputs), points(inputs, 10, seed=0)
    moving = placed(5, 3, seed=3).requires_grad_()
    kernel.distances.place([moving])
    evaluate(kernel, x)
    kernel(x).to_dense().sum().backward()
    assert moving.grad is not None and bool(moving.grad.abs().max() > 1e-3)


@pytest.mark.parametrize("space", SPACES)
def test_the_gradients_of_the_log_density(space: str) -> None:
    """Of all hyperparameters, weights of meaning among them, against central differences."""
    inputs = SPACES[space]
    x = torch.cat([points(inputs, 16, seed=0), torch.zeros(16, 2)], dim=1)
    x[::2, -2] = torch.linspace(0, 0.9, 8, dtype=torch.float64)
    x[10:, -1] = 1
    y = torch.from_numpy(np.random.default_rng(1).normal(size=16))
    whole = layout(inputs, has_gaps=True, n_sources=1)
    model = fit_process(x, y, lambda: covariance("numeric", whole)).train().requires_grad_(True)
    randomize_(model.covar_module, seed=0)
    log_density = log_posterior(model)
    log_density().backward()
    step, n_checked = 1e-5, 0
    for name, parameter in model.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            heights = []
            for sign in (1, -1):
                flat[i] += sign * step
                with torch.no_grad():
                    heights.append(float(log_density()))
                flat[i] -= sign * step
            slope = (heights[0] - heights[1]) / (2 * step)
            assert float(gradient[i]) == pytest.approx(slope, rel=1e-3, abs=1e-5), name
            n_checked += "raw_weight" in name
    assert n_checked == sum(choices.coordinates is not None for choices in inputs.choices)


# What a fit makes of choices.

SIDE = 20
SEEDS = range(6)


def effects(seed: int) -> tuple[np.ndarray, Tensor]:
    """What each of 20 choices of two parameters adds, (2, 20), and a coordinate that tells it."""
    hidden = np.random.default_rng(seed).uniform(-1, 1, (2, SIDE))
    meant = torch.from_numpy(hidden - hidden.mean(axis=1, keepdims=True))[..., None]
    size = (2 * meant.square().sum(dim=1, keepdim=True) / (SIDE - 1)).sqrt()
    return np.sin(2.5 * hidden), meant / size


@cache
def learned(kind: str, seed: int, n: int = 30) -> tuple[float, float, float]:
    """Rank a process of 20 x 20 choices: how far it is off elsewhere in its own deviations, how
    far in those of the truth, and the mean weight of meaning.

    Args:
        kind: "none", "right" or "random" coordinates.
        seed: of the function and the trials.
        n: number of trials.
    """
    adds, meant = effects(seed)
    if kind == "random":
        meant = torch.stack([placed(SIDE, 8, seed=100 + 2 * seed + i) for i in range(2)])
    places = (None, None) if kind == "none" else tuple(meant)
    inputs = Inputs(0, tuple(Choices(SIDE, place) for place in places))
    grid = np.array(list(product(range(SIDE), repeat=2)), dtype=np.float64)
    truth = adds[0][grid[:, 0].astype(int)] + adds[1][grid[:, 1].astype(int)]
    order = np.random.default_rng(seed + 1000).permutation(len(grid))
    tried, others = order[:n], order[n:]
    centre, scale = truth[tried].mean(), truth[tried].std()
    observed = Views(torch.from_numpy(grid[tried]))
    targets = torch.from_numpy((truth[tried] - centre) / scale)
    surrogate = fit_surrogate(observed, targets, "numeric", inputs, observed, Ablation())
    with torch.no_grad():
        features = surrogate.features(Views(torch.from_numpy(grid[others])))
        posterior = surrogate.model.posterior(features)
        mean, deviation = posterior.mean[:, 0].numpy(), posterior.variance[:, 0].sqrt().numpy()
    off = (truth[others] - centre) / scale - mean
    own, relative = np.sqrt(np.mean((off / deviation) ** 2)), off.std() / truth.std() * scale
    weight = _distances(surrogate.model).weight.detach().mean()
    return float(own), float(relative), float(weight)


def over_seeds(kind: str) -> np.ndarray:
    """See `learned`, (3, seeds)."""
    return np.array([learned(kind, seed) for seed in SEEDS]).T


def test_few_of_many_choices_do_not_make_it_sure_of_the_others() -> None:
    """30 of 400 pairs of choices were tried, and what each choice adds is learned."""
    own, relative, weight = over_seeds("none")
    assert own.max() < 1.3
    assert relative.max() < 0.75  # of the deviation of the truth
    assert (weight == 0).all()


def test_meaning_that_is_right_tells_of_choices_that_were_not_tried() -> None:
    own, relative, weight = over_seeds("right")
    assert own.max() < 1.3
    assert relative.max() < 0.1
    assert weight.min() > 0.9  # from 0.5


def test_meaning_that_is_wrong_does_no_harm() -> None:
    own, relative, weight = over_seeds("random")
    assert own.max() < 1.3
    assert (relative < over_seeds("none")[1] + 0.05).all()
    assert weight.max() < 0.6


def test_members_of_a_process_of_choices() -> None:
    """Hyperparameters are drawn with the weights, and each member keeps its own."""
    inputs = SPACES["mixed"]
    x = points(inputs, 12, seed=0)
    y = torch.from_numpy(np.random.default_rng(1).normal(size=(12, 1)))
    found = fit_surrogates(Views(x), y, "numeric", inputs, Views(x), Ablation(members=4))
    weights = {tuple(_distances(one.parts[0].model).weight.tolist()) for one in found.members}
    assert len(found.members) == 4 and len(weights) > 1
    mean, deviation = found.moments(found.features(Views(points(inputs, 7, seed=3))))
    assert mean.isfinite().all() and (deviation > 0).all()


def _distances(model: SingleTaskGP) -> ChoiceDistances:
    modules = model.covar_module.modules()
    return next(module for module in modules if isinstance(module, ChoiceDistances))
