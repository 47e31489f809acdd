"""The surrogate's covariance function, composed of GPyTorch kernels with priors.

    k = r r' (w_n Matern(inputs) + w_t Matern(text)) + [same study] (1 - r^2) w_s Matern(inputs)
        + w_f (1 - s)(1 - s') Matern(inputs)

The inputs are numbers and, where there are nominal parameters, choices (see `choices`); where
r is a study's correlation with this one (1 for itself), and s the share of its steps that a
trial ran before it was pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any
from typing import Literal

from gpytorch.constraints import GreaterThan
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.kernels import LinearKernel
from gpytorch.kernels import ScaleKernel
from gpytorch.priors import UniformPrior
import torch
from torch import Tensor

from optuna_llmbo.surrogate.choices import ChoiceDistances
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.choices import NumbersAndChoices
from optuna_llmbo.surrogate.priors import LEAST_LENGTHSCALE
from optuna_llmbo.surrogate.priors import LENGTHSCALE_STANDARD_DEVIATION
from optuna_llmbo.surrogate.priors import log_normal


KernelName = Literal["sum", "text", "numeric"]
KERNELS: tuple[KernelName, ...] = ("sum", "text", "numeric")

_LENGTHSCALE_MEDIAN = 0.5
"""Prior median of a lengthscale in one dimension, in units of a parameter's range."""
_TEXT_WEIGHT_MEDIAN = 0.3
"""Prior median of the text kernel's variance, the numeric kernel's being 1: with few trials the
numbers are the better guide, and the text must earn its weight."""

_GAP_WEIGHT_MEDIAN = 0.3
"""Prior median, relative to the target's variance, of the variance of what a trial that stopped at
once would have gained or lost more than others."""


@dataclass(frozen=True)
class Layout:
    """The columns of the surrogate's input: numbers, choices, text, gap, source."""

    inputs: Inputs
    """Numbers and choices: hyperparameters and derived quantities."""
    k: int
    """Text features."""
    has_gaps: bool
    """Whether any trial was observed before its end."""
    n_sources: int
    """Number of other studies that observations come from."""

    @property
    def text(self) -> range:
        """Columns of the text features."""
        return range(self.inputs.width, self.inputs.width + self.k)

    @property
    def gap(self) -> range:
        """The column with 1 - the share of its steps that a trial ran: 0 for a complete one."""
        return range(self.text.stop, self.text.stop + 1)

    @property
    def source(self) -> range:
        """The column with the study: 0 for this one, i for the i-th other one."""
        return range(self.gap.stop, self.gap.stop + 1)


class _Matern52(torch.autograd.Function):
    """(1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r) of scaled distances r.

    The gradients are written out: those of a square root are infinite at zero, and the graph of
    the distances takes longer than they do.
    """

    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, lengthscale: Tensor) -> Tensor:
        """The correlations of x1 (n, columns) and x2 (m, columns), (n, m)."""
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, precise only around the origin
        centre = x2.mean(dim=0)
        left, right = (x1 - centre) / lengthscale, (x2 - centre) / lengthscale
        ones, others = left.square().sum(dim=1), right.square().sum(dim=1)
        squared = torch.addmm(ones[:, None] + others, left, right.T, alpha=-2).clamp_min_(0)
        root = (5 * squared).sqrt_()
        decay = torch.exp(-root)
        ctx.save_for_backward(left, right, lengthscale, root, decay)
        return squared.mul_(5 / 3).add_(root).add_(1).mul_(decay)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """The gradients with respect to x1, x2 and the lengthscale."""
        left, right, lengthscale, root, decay = ctx.saved_tensors
        of_squared = gradients[0] * (-5 / 6) * (1 + root) * decay
        rows, columns = of_squared.sum(dim=1)[:, None], of_squared.sum(dim=0)[:, None]
        across = of_squared @ right
        spread = (rows * left.square() - 2 * left * across).sum(dim=0)
        spread = spread + (columns * right.square()).sum(dim=0)
        of_lengthscale = (-2 * spread / lengthscale).sum_to_size(lengthscale.shape)
        of_x1 = of_x2 = None
        if ctx.needs_input_grad[0]:
            of_x1 = 2 * (rows * left - across) / lengthscale
        if ctx.needs_input_grad[1]:
            of_x2 = 2 * (columns * right - of_squared.T @ left) / lengthscale
        return of_x1, of_x2, of_lengthscale


class Matern52(Kernel):
    """The Matern-5/2 kernel, with a lengthscale for each column or one for all.

    Faster than GPyTorch's, which a suggestion spends most of its time in.
    """

    has_lengthscale = True

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The correlation matrix of x1 (n, columns) and x2 (m, columns), or its diagonal, (n,)."""
        if diag:
            root = ((x1 - x2) / self.lengthscale).square().sum(dim=1).mul(5).sqrt()
            return (1 + root + root.square() / 3) * torch.exp(-root)
        matrix: Tensor = _Matern52.apply(x1, x2, self.lengthscale)
        return matrix


class Transfer(Kernel):
    """The covariance that studies share, and what each other study has of its own.

    r_i r_j shared(x, x') between studies i and j, and (1 - r_i^2) own(x, x') within one, r = 1
    for this study: a linear model of coregionalization (Bonilla, Chai & Williams 2007, Multi-task
    Gaussian Process Prediction). The r of each other study is learned, uniform in (0, 1) before:
    at 0 its observations say nothing of this study's target, and a part of its own to explain
    them keeps them from bending what is shared. No study can help by being the opposite.
    """

    def __init__(self, shared: Kernel, own: Kernel, n_sources: int, column: range) -> None:
        super().__init__()
        self.shared = shared
        self.own = own
        self._column = column.start
        self.register_parameter("raw_r", torch.nn.Parameter(torch.zeros(n_sources)))
        self.register_constraint("raw_r", Interval(0.0, 1.0))
        self.register_prior("r_prior", UniformPrior(0.0, 1.0), lambda module: module.r)

    @property
    def r(self) -> Tensor:
        """Correlation of each other study with this one, (n_sources,)."""
        return self.raw_r_constraint.transform(self.raw_r)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The covariance matrix, (..., n, m), or its diagonal, (..., n)."""
        r = torch.cat([self.r.new_ones(1), self.r])
        i, j = (x[..., self._column].round().long() for x in (x1, x2))
        if diag:
            shared, own = (k(x1, x2, diag=True) for k in (self.shared, self.own))
            return r[i].square() * shared + (1 - r[i].square()) * own
        shared, own = (k(x1, x2).to_dense() for k in (self.shared, self.own))
        between = r[i][..., :, None] * r[j][..., None, :]
        within = torch.where(i[..., :, None] == j[..., None, :], 1 - between, 0.0)
        return between * shared + within * own


def covariance(kernel: KernelName, layout: Layout) -> Kernel:
    """Compose the covariance function of a kernel, in float64."""
    distances = ChoiceDistances(layout.inputs.choices)
    if kernel == "text":
        whole: Kernel = _scaled(_matern(layout.text, ard=False), weight_median=1.0)
    else:
        whole = inputs_kernel(layout.inputs, distances, main_effects=True)
    if kernel == "sum":
        whole += _scaled(_matern(layout.text, ard=False), weight_median=_TEXT_WEIGHT_MEDIAN)
    if layout.n_sources:
        own = inputs_kernel(layout.inputs, distances)
        whole = Transfer(whole, own, layout.n_sources, layout.source)
    if layout.has_gaps:
        whole = whole + _gap_kernel(layout, distances)
    return whole.to(torch.float64)


def inputs_kernel(
    inputs: Inputs,
    distances: ChoiceDistances | None = None,
    *,
    main_effects: bool = False,
    least_lengthscale: float = LEAST_LENGTHSCALE,
) -> Kernel:
    """A Matern-5/2 kernel on numbers and choices, with priors on lengthscales and variance.

    Args:
        inputs: the columns.
        distances: of the choices; kernels of one process share them. Default None: new ones.
        main_effects: whether the choices of nominal parameters have main effects.
        least_lengthscale: bound of the lengthscales, in units of a parameter's range.
    """
    kernel = _of_inputs(
        inputs,
        distances or ChoiceDistances(inputs.choices),
        ard=True,
        main_effects=main_effects,
        least_lengthscale=least_lengthscale,
    )
    return _scaled(kernel, weight_median=1.0)


def scaled_matern(columns: range, *, ard: bool, weight_median: float) -> Kernel:
    """A Matern-5/2 kernel on columns of numbers, with priors on lengthscale and variance."""
    return _scaled(_matern(columns, ard=ard), weight_median=weight_median)


def _gap_kernel(layout: Layout, distances: ChoiceDistances) -> Kernel:
    """What the rest of a run would have changed: nothing at gap 0, most at gap 1.

    The targets already include the trend that all runs share: see `history`.
    """
    linear = LinearKernel(
        active_dims=tuple(layout.gap),
        variance_prior=log_normal(_GAP_WEIGHT_MEDIAN, 1.0),
        variance_constraint=GreaterThan(1e-4, initial_value=_GAP_WEIGHT_MEDIAN),
    )
    return linear * _of_inputs(layout.inputs, distances, ard=False)


def _scaled(kernel: Kernel, *, weight_median: float) -> Kernel:
    weight_prior = log_normal(weight_median, 1.0)
    # Without a floor the weight underflows to 0, outside the prior's support.
    floor = GreaterThan(1e-4, initial_value=weight_median)
    return ScaleKernel(kernel, outputscale_prior=weight_prior, outputscale_constraint=floor)


def _of_inputs(
    inputs: Inputs,
    distances: ChoiceDistances,
    *,
    ard: bool,
    main_effects: bool = False,
    least_lengthscale: float = LEAST_LENGTHSCALE,
) -> Kernel:
    if not inputs.choices:
        return _matern(inputs.columns, ard=ard, least_lengthscale=least_lengthscale)
    return NumbersAndChoices(
        inputs,
        distances,
        lengthscale_median=_lengthscale_median(inputs.width),
        least_lengthscale=least_lengthscale,
        ard=ard,
        main_effects=main_effects,
    )


def _matern(
    columns: range, *, ard: bool, least_lengthscale: float = LEAST_LENGTHSCALE
) -> Matern52:
    """A Matern-5/2 kernel with a log-normal prior on the lengthscale; it is narrower than that of
    Hvarfner et al. (2024)."""
    prior = log_normal(_lengthscale_median(len(columns)), LENGTHSCALE_STANDARD_DEVIATION)
    start = max(float(prior.mode), 1.1 * least_lengthscale)
    return Matern52(
        ard_num_dims=len(columns) if ard else None,
        active_dims=tuple(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=GreaterThan(least_lengthscale, initial_value=start),
    )


def _lengthscale_median(width: int) -> float:
    """The prior median grows with the square root of the dimension, as distances do (Hvarfner,
    Hellsten & Nardi 2024, arXiv:2402.02229)."""
    return _LENGTHSCALE_MEDIAN * math.sqrt(width)
