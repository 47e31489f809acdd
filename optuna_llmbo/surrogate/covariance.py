"""The surrogate's covariance function, composed of GPyTorch kernels with priors.

    k = r r' (w_n Matern(numbers) + w_t Matern(text)) + [same study] (1 - r^2) w_s Matern(numbers)
        + w_f (1 - s)(1 - s') Matern(numbers)

where r is a study's correlation with this one (1 for itself), and s the share of a run that was
made before it was pruned.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Literal

from gpytorch.constraints import GreaterThan
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.kernels import LinearKernel
from gpytorch.kernels import MaternKernel
from gpytorch.kernels import ScaleKernel
from gpytorch.priors import LogNormalPrior
from gpytorch.priors import UniformPrior
import torch
from torch import Tensor


KernelName = Literal["sum", "text", "numeric"]
KERNELS: tuple[KernelName, ...] = ("sum", "text", "numeric")

_LENGTHSCALE_MEDIAN = 0.5
"""Prior median of a lengthscale in one dimension, in units of a parameter's range."""
_LENGTHSCALE_DEVIATION = 0.7
"""Of its logarithm. Hvarfner et al.'s 1.7 lets ten trials choose lengthscales far too long, and
the surrogate is then sure of what it does not know."""

_TEXT_WEIGHT_MEDIAN = 0.3
"""Prior median of the text kernel's variance, the numeric kernel's being 1: with few trials the
numbers are the better guide, and text must earn its weight."""

_GAP_WEIGHT_MEDIAN = 0.3
"""Prior median of the variance of what a run stopped at once would have gained or lost more than
others, in units of the target's."""


@dataclass(frozen=True)
class Layout:
    """The columns of the surrogate's input: numbers, text, gap, source."""

    p: int
    """Numeric features."""
    k: int
    """Text features."""
    has_gaps: bool
    """Whether a run was observed before its end."""
    n_sources: int
    """Other studies that observations come from."""

    @property
    def numeric(self) -> range:
        """The hyperparameters and the derived quantities."""
        return range(self.p)

    @property
    def text(self) -> range:
        """The embedding's projection."""
        return range(self.p, self.p + self.k)

    @property
    def gap(self) -> range:
        """1 - the share of the run that was made: 0 for a complete one."""
        return range(self.p + self.k, self.p + self.k + 1)

    @property
    def source(self) -> range:
        """0 for this study, i for the i-th other one."""
        return range(self.p + self.k + 1, self.p + self.k + 2)


class Transfer(Kernel):
    """What studies share, and what the other ones have for themselves.

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
        """The covariance matrix, (..., n, m), or its diagonal."""
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
    """The covariance function of one kind of surrogate, in float64."""
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
    """What the end of a run would have changed: nothing at gap 0, most at gap 1.

    The trend that all runs share is in the targets already (see `history`).
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
    """Matern-5/2 on some columns, with priors on the lengthscale and on the variance."""
    matern = _matern(columns, ard=ard, least_lengthscale=least_lengthscale)
    weight_prior = LogNormalPrior(math.log(weight_median), 1.0)
    # Without a floor the weight underflows to 0, outside the prior's support.
    floor = GreaterThan(1e-4, initial_value=weight_median)
    return ScaleKernel(matern, outputscale_prior=weight_prior, outputscale_constraint=floor)


def _matern(columns: range, *, ard: bool, least_lengthscale: float = 2.5e-2) -> MaternKernel:
    """Matern-5/2; the lengthscale's log-normal prior grows with the square root of the dimension,
    as distances do (Hvarfner, Hellsten & Nardi 2024, arXiv:2402.02229, with a narrower one)."""
    width = len(columns)
    median = _LENGTHSCALE_MEDIAN * math.sqrt(width)
    prior = LogNormalPrior(math.log(median), _LENGTHSCALE_DEVIATION)
    start = max(float(prior.mode), 1.1 * least_lengthscale)
    return MaternKernel(
        nu=2.5,
        ard_num_dims=width if ard else None,
        active_dims=tuple(columns),
        lengthscale_prior=prior,
        lengthscale_constraint=GreaterThan(least_lengthscale, initial_value=start),
    )
