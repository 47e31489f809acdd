"""The surrogate's covariance function, composed of GPyTorch kernels with priors.

    k = r r' (w_n Matern(numbers) + w_t Matern(text)) + [same study] (1 - r^2) w_s Matern(numbers)
        + w_f (1 - s)(1 - s') Matern(numbers)

where r is a study's correlation with this one (1 for itself), and s the share of its steps that a
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
from gpytorch.priors import LogNormalPrior
from gpytorch.priors import UniformPrior
import torch
from torch import Tensor


KernelName = Literal["sum", "text", "numeric"]
KERNELS: tuple[KernelName, ...] = ("sum", "text", "numeric")

_LENGTHSCALE_MEDIAN = 0.5
"""Prior median of a lengthscale in one dimension, in units of a parameter's range."""
_LENGTHSCALE_STANDARD_DEVIATION = 0.7
"""Prior standard deviation of a lengthscale's logarithm. With Hvarfner et al.'s 1.7, ten trials
can choose far too long lengthscales, and the surrogate is sure of what it does not know."""

_TEXT_WEIGHT_MEDIAN = 0.3
"""Prior median of the text kernel's variance, the numeric kernel's being 1: with few trials the
numbers are the better guide, and the text must earn its weight."""

_GAP_WEIGHT_MEDIAN = 0.3
"""Prior median, relative to the target's variance, of the variance of what a trial that stopped at
once would have gained or lost more than others."""


@dataclass(frozen=True)
class Layout:
    """The columns of the surrogate's input: numbers, text, gap, source."""

    p: int
    """Numeric features."""
    k: int
    """Text features."""
    has_gaps: bool
    """Whether any trial was observed before its end."""
    n_sources: int
    """Number of other studies that observations come from."""

    @property
    def numeric(self) -> range:
        """Columns of the hyperparameters and the derived quantities."""
        return range(self.p)

    @property
    def text(self) -> range:
        """Columns of the text features."""
        return range(self.p, self.p + self.k)

    @property
    def gap(self) -> range:
        """The column with 1 - the share of its steps that a trial ran: 0 for a complete one."""
        return range(self.p + self.k, self.p + self.k + 1)

    @property
    def source(self) -> range:
        """The column with the study: 0 for this one, i for the i-th other one."""
        return range(self.p + self.k + 1, self.p + self.k + 2)


class _Matern52(torch.autograd.Function):
    """(1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r) of squared distances r^2, any shape.

    The derivative by r^2 is written out: that of a square root is infinite at zero.
    """

    @staticmethod
    def forward(ctx: Any, squared: Tensor) -> Tensor:
        """The correlations."""
        root = (5 * squared).sqrt()
        decay = torch.exp(-root)
        ctx.save_for_backward(root, decay)
        return (1 + root + 5 / 3 * squared) * decay

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient with respect to the squared distances."""
        root, decay = ctx.saved_tensors
        return gradients[0] * (-5 / 6) * (1 + root) * decay


class Matern52(Kernel):
    """The Matern-5/2 kernel, faster than GPyTorch's with a lengthscale for each column."""

    has_lengthscale = True

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The correlation matrix, (n, m), or its diagonal, (n,)."""
        left, right = x1 / self.lengthscale, x2 / self.lengthscale
        if diag:
            return _Matern52.apply((left - right).square().sum(dim=-1))
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, precise only around the origin
        centre = left.detach().mean(dim=-2, keepdim=True)
        left, right = left - centre, right - centre
        ones, others = (part.square().sum(dim=-1) for part in (left, right))
        squared = ones[..., :, None] + others[..., None, :] - 2 * left @ right.mT
        return _Matern52.apply(squared.clamp_min(0))


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
    if kernel == "text":
        whole = scaled_matern(layout.text, ard=False, weight_median=1.0)
    else:
        whole = scaled_matern(layout.numeric, ard=True, weight_median=1.0)
    if kernel == "sum":
        whole += scaled_matern(layout.text, ard=False, weight_median=_TEXT_WEIGHT_MEDIAN)
    if layout.n_sources:
        own = scaled_matern(layout.numeric, ard=True, weight_median=1.0)
        whole = Transfer(whole, own, layout.n_sources, layout.source)
    if layout.has_gaps:
        whole = whole + _gap_kernel(layout)
    return whole.to(torch.float64)


def _gap_kernel(layout: Layout) -> Kernel:
    """What the rest of a run would have changed: nothing at gap 0, most at gap 1.

    The targets already include the trend that all runs share: see `history`.
    """
    linear = LinearKernel(
        active_dims=tuple(layout.gap),
        variance_prior=LogNormalPrior(math.log(_GAP_WEIGHT_MEDIAN), 1.0),
        variance_constraint=GreaterThan(1e-4, initial_value=_GAP_WEIGHT_MEDIAN),
    )
    return linear * _matern(layout.numeric, ard=False)


def scaled_matern(
    columns: range, *, ard: bool, weight_median: float, least_lengthscale: float = 2.5e-2
) -> Kernel:
    """A Matern-5/2 kernel on some columns, with priors on lengthscale and variance."""
    matern = _matern(columns, ard=ard, least_lengthscale=least_lengthscale)
    weight_prior = LogNormalPrior(math.log(weight_median), 1.0)
    # Without a floor the weight underflows to 0, outside the prior's support.
    floor = GreaterThan(1e-4, initial_value=weight_median)
    return ScaleKernel(matern, outputscale_prior=weight_prior, outputscale_constraint=floor)


def _matern(columns: range, *, ard: bool, least_lengthscale: float = 2.5e-2) -> Matern52:
    """A Matern-5/2 kernel with a log-normal prior on the lengthscale.

    The prior grows with the square root of the dimension, as distances do (Hvarfner, Hellsten &
    Nardi 2024, arXiv:2402.02229); it is narrower here.
    """
    width = len(columns)
    median = _LENGTHSCALE_MEDIAN * math.sqrt(width)
    prior = LogNormalPrior(math.log(median), _LENGTHSCALE_STANDARD_DEVIATION)
    start = max(float(prior.mode), 1.1 * least_lengthscale)
    return Matern52(
        ard_num_dims=width if ard else None,
        active_dims=tuple(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=GreaterThan(least_lengthscale, initial_value=start),
    )
