from __future__ import annotations

import math

from gpytorch.kernels import ConstantKernel
from gpytorch.kernels import Kernel
from gpytorch.kernels import LinearKernel
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import KernelName
from optuna_llmbo.surrogate.covariance import KERNELS
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.covariance import Transfer


LAYOUT = Layout(Inputs(2), k=3, has_gaps=True, n_sources=2)


def inputs(n: int, seed: int) -> Tensor:
    """Numbers, text, gap, source, with rows of all three studies and of pruned trials."""
    rng = np.random.default_rng(seed)
    source = np.arange(n) % 3
    gap = np.where((source == 0) & (rng.random(n) < 0.6), rng.random(n), 0.0)
    return torch.from_numpy(np.column_stack([rng.random((n, 5)), gap, source]))


def randomize_(kernel: Kernel, seed: int = 0) -> None:
    """Change every hyperparameter in place, so that no two parts agree by chance."""
    rng = np.random.default_rng(seed)
    for module in kernel.modules():
        if isinstance(module, MaternKernel):
            module.lengthscale = torch.from_numpy(rng.uniform(0.2, 1.5, module.lengthscale.shape))
        elif isinstance(module, ScaleKernel):
            module.outputscale = rng.uniform(0.3, 2.0)
        elif isinstance(module, LinearKernel):
            module.variance = rng.uniform(0.3, 2.0)
        elif isinstance(module, Transfer):
            module.raw_r.data = torch.from_numpy(rng.normal(size=len(module.raw_r)))


def matern(x: np.ndarray, y: np.ndarray, lengthscale: Tensor) -> np.ndarray:
    """Matern-5/2 (Rasmussen & Williams 2006, eq. 4.17)."""
    scaled = (x[:, None] - y[None]) / lengthscale.detach().numpy()
    d = math.sqrt(5) * np.linalg.norm(scaled, axis=-1)
    correlation: np.ndarray = (1 + d + d**2 / 3) * np.exp(-d)
    return correlation


def evaluate(kernel: Kernel, x: Tensor, y: Tensor | None = None) -> np.ndarray:
    with torch.no_grad():
        matrix: np.ndarray = kernel(x, y).to_dense().numpy()
    return matrix


def test_layout_names_each_column_once() -> None:
    columns = [*LAYOUT.inputs.columns, *LAYOUT.text, *LAYOUT.gap, *LAYOUT.source]
    assert columns == list(range(7))
    assert [len(part) for part in (LAYOUT.inputs.columns, LAYOUT.text, LAYOUT.gap)] == [2, 3, 1]
    alone = Layout(Inputs(4), k=0, has_gaps=False, n_sources=0)
    assert [*alone.inputs.columns, *alone.text, *alone.gap, *alone.source] == list(range(6))


def transfer() -> Transfer:
    """Two other studies, with constant kernels for what is shared (2) and their own (5)."""
    shared, own = ConstantKernel(), ConstantKernel()
    shared.constant, own.constant = torch.tensor(2.0), torch.tensor(5.0)
    return Transfer(shared, own, 2, LAYOUT.source).to(torch.float64)


def test_what_three_studies_share() -> None:
    kernel = transfer()
    kernel.raw_r.data = torch.tensor([math.log(0.8 / 0.2), math.log(0.3 / 0.7)]).double()
    np.testing.assert_allclose(kernel.r.detach().numpy(), [0.8, 0.3])
    rows = inputs(5, seed=0)[[0, 1, 2, 3, 4]]  # of the studies 0, 1, 2, 0, 1
    correlation = np.array([1.0, 0.8, 0.3, 1.0, 0.8])
    expected = 2 * np.outer(correlation, correlation)
    for i, j in ((1, 1), (1, 4), (4, 1), (4, 4)):
        expected[i, j] += 5 * (1 - 0.8**2)
    expected[2, 2] += 5 * (1 - 0.3**2)
    np.testing.assert_allclose(evaluate(kernel, rows), expected)
    np.testing.assert_allclose(evaluate(kernel, rows[1:3], rows), expected[1:3])
    batch = torch.stack([rows, rows.flip(0)])
    np.testing.assert_allclose(evaluate(kernel, batch)[1], expected[::-1, ::-1])


@pytest.mark.parametrize("raw", [-6.0, 0.0, 6.0])
def test_a_source_is_never_wholly_trusted_nor_the_opposite(raw: float) -> None:
    kernel = transfer()
    assert kernel.r.tolist() == [0.5, 0.5]  # in the middle before the fit
    kernel.raw_r.data = torch.full((2,), raw, dtype=torch.float64)
    assert (0 < kernel.r).all() and (kernel.r < 1).all()
    ((module, prior, closure),) = [
        found[1:4] for found in kernel.named_priors() if found[0] == "r_prior"
    ]
    assert prior.log_prob(closure(module)).tolist() == [0.0, 0.0]  # uniform


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_matrices_are_symmetric_and_positive_semidefinite(kernel: KernelName, seed: int) -> None:
    whole = covariance(kernel, LAYOUT)
    randomize_(whole, seed)
    matrix = evaluate(whole, inputs(24, seed))
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_diagonal_is_that_of_the_matrix(kernel: KernelName) -> None:
    whole = covariance(kernel, LAYOUT)
    randomize_(whole)
    rows = inputs(9, seed=1)
    with torch.no_grad():
        diagonal = whole(rows, diag=True).numpy()
    np.testing.assert_allclose(diagonal, np.diag(evaluate(whole, rows)))


def test_the_sum_of_its_parts_by_hand() -> None:
    whole = covariance("sum", LAYOUT)
    randomize_(whole)
    related, gap_part = whole.kernels
    numeric, text = related.shared.kernels
    linear, along = gap_part.kernels
    x, y = inputs(7, seed=2).numpy(), inputs(5, seed=3).numpy()

    r = np.array([1.0, *related.r.tolist()])
    i, j = x[:, 6].astype(int), y[:, 6].astype(int)
    same = i[:, None] == j[None]
    between = r[i][:, None] * r[j][None]
    within = np.where(same, 1 - r[i][:, None] ** 2, 0.0)
    numbers = matern(x[:, :2], y[:, :2], numeric.base_kernel.lengthscale)
    words = matern(x[:, 2:5], y[:, 2:5], text.base_kernel.lengthscale)
    unfinished = linear.variance.item() * np.outer(x[:, 5], y[:, 5])
    shared = numeric.outputscale.item() * numbers + text.outputscale.item() * words
    own = related.own.outputscale.item() * matern(
        x[:, :2], y[:, :2], related.own.base_kernel.lengthscale
    )
    expected = shared * between + own * within
    expected += unfinished * matern(x[:, :2], y[:, :2], along.lengthscale)
    np.testing.assert_allclose(evaluate(whole, torch.from_numpy(x), torch.from_numpy(y)), expected)


def test_a_complete_run_has_no_part_in_the_gap_and_an_early_end_the_most() -> None:
    layouts = [Layout(Inputs(2), k=0, has_gaps=gaps, n_sources=0) for gaps in (True, False)]
    with_gaps, without = (covariance("numeric", layout) for layout in layouts)
    gaps = torch.linspace(0, 1, 5, dtype=torch.float64)
    rows = torch.cat([torch.full((5, 2), 0.4).double(), gaps[:, None], gaps[:, None] * 0], dim=1)
    more = np.diag(evaluate(with_gaps, rows) - evaluate(without, rows))
    assert more[0] == 0.0
    assert (np.diff(more) > 0).all()
    # from what a run stopped at once would have gained: the prior's median
    np.testing.assert_allclose(more, 0.3 * gaps.numpy() ** 2, rtol=1e-6)
    # and a complete run learns of it from no other
    np.testing.assert_array_equal(
        evaluate(with_gaps, rows[:1], rows), evaluate(without, rows[:1], rows)
    )


def test_the_fit_reaches_how_related_a_source_is() -> None:
    whole = covariance("sum", LAYOUT)
    relatedness = next(m for m in whole.modules() if isinstance(m, Transfer))
    whole(inputs(6, seed=0)).to_dense()[0].sum().backward()  # of this study with all others
    assert (relatedness.raw_r.grad > 0).all()
    ours = inputs(6, seed=0)
    ours[:, 6] = 0  # without the sources' rows there is nothing to learn of them
    relatedness.raw_r.grad = None
    whole(ours).to_dense().sum().backward()
    assert relatedness.raw_r.grad is None or (relatedness.raw_r.grad == 0).all()


def test_parts_that_are_not_needed_are_not_there() -> None:
    plain = covariance("numeric", Layout(Inputs(2), k=0, has_gaps=False, n_sources=0))
    assert isinstance(plain, ScaleKernel)
    kinds = {type(module) for module in covariance("text", LAYOUT).modules()}
    assert {Transfer, LinearKernel} <= kinds


def test_weight_prior_favours_numbers() -> None:
    layout = Layout(Inputs(3), k=4, has_gaps=False, n_sources=0)
    numeric, text = covariance("sum", layout).kernels
    assert numeric.outputscale.item() > text.outputscale.item()
    assert list(numeric.base_kernel.active_dims) == [0, 1, 2]
    assert list(text.base_kernel.active_dims) == [3, 4, 5, 6]
    assert numeric.base_kernel.ard_num_dims == 3 and text.base_kernel.ard_num_dims is None
    alone = covariance("text", layout)
    assert alone.outputscale.item() == pytest.approx(numeric.outputscale.item())
