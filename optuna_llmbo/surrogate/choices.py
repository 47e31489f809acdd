"""How alike the choices of nominal parameters are, and a kernel on numbers and choices.

Shapes: n and m points, p numbers, c nominal parameters, C choices of one of them, k coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
from typing import Any

from botorch.models import SingleTaskGP
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel
from gpytorch.module import Module
from gpytorch.priors import NormalPrior
import torch
from torch import Tensor

from optuna_llmbo.space.search_space import ABSENT
from optuna_llmbo.surrogate.priors import LEAST_LENGTHSCALE
from optuna_llmbo.surrogate.priors import LENGTHSCALE_STANDARD_DEVIATION
from optuna_llmbo.surrogate.priors import log_normal


_TO_ABSENT = 0.5
"""Squared distance of any choice to none: a nominal parameter's centre is as far from all."""
_WEIGHT_STANDARD_DEVIATION = 1.5
"""Prior standard deviation of the logit of the weight of meaning, whose mean favours neither."""
_MAIN_LENGTHSCALE_MEDIAN = 0.5
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class Choices:
    """The choices of one nominal parameter."""

    n: int
    """C."""
    coordinates: Tensor | None = None
    """(C, k) float64, centred: where a language model places them; the mean squared distance of
    two of them is 1. None where only equal and different are told apart."""


@dataclass(frozen=True)
class Inputs:
    """The columns of a process over hyperparameters: p numbers, then which choices."""

    p: int
    choices: tuple[Choices, ...] = field(default=())
    """One for each nominal parameter."""

    @property
    def width(self) -> int:
        """Number of columns, p + c."""
        return self.p + len(self.choices)

    @property
    def columns(self) -> range:
        """All columns."""
        return range(self.width)


class Matern52OfSquares(torch.autograd.Function):
    """(1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r) of squared distances r^2.

    The gradient is written out: that of a square root is infinite at zero.
    """

    @staticmethod
    def forward(ctx: Any, squared: Tensor) -> Tensor:
        """The correlations, in the shape of the distances."""
        root = (5 * squared.clamp_min(0)).sqrt()
        decay = torch.exp(-root)
        ctx.save_for_backward(root, decay)
        return (1 + root + root.square() / 3) * decay

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient with respect to the squared distances."""
        root, decay = ctx.saved_tensors
        return gradients[0] * (-5 / 6) * (1 + root) * decay


@dataclass(frozen=True)
class _Pairs:
    """The pairs of choices that two sets of points make, each parameter's different ones once."""

    different: Tensor
    """(pairs,) squared distance where only equal and different are told apart."""
    meant: Tensor
    """(pairs,) squared distance of the coordinates; the same as `different` without any."""
    parameter: Tensor
    """(pairs,) int64, which parameter each pair is of."""
    index: Tensor
    """(c, n, m) int64, which pair the points' choices make."""


class ChoiceDistances(Module):
    """Squared distances between choices: equal or not, and what they mean.

        D_i = (1 - w_i) [c != c'] + w_i |e(c) - e(c')|^2

    with the coordinates e of a language model, and w_i = 0 for a parameter that has none. The
    weights w are learned; their logits have a normal prior around 0.
    """

    def __init__(self, choices: Sequence[Choices]) -> None:
        super().__init__()
        self._choices = tuple(choices)
        self._coordinates = [_with_absent(one.coordinates) for one in choices]
        self._known: tuple[Tensor, _Pairs] | None = None
        meaningful = [one.coordinates is not None for one in choices]
        self._meaningful = torch.tensor(meaningful)
        if any(meaningful):
            zeros = torch.zeros(sum(meaningful), dtype=torch.float64)
            self.register_parameter("raw_weight", torch.nn.Parameter(zeros))
            moments = (0.0, _WEIGHT_STANDARD_DEVIATION)
            prior = NormalPrior(*(torch.tensor(x, dtype=torch.float64) for x in moments))
            self.register_prior("weight_prior", prior, lambda module: module.raw_weight)

    @property
    def c(self) -> int:
        """Number of nominal parameters."""
        return len(self._choices)

    @property
    def weight(self) -> Tensor:
        """How much meaning weighs against equal or not, (c,) in [0, 1)."""
        weight = torch.zeros(self.c, dtype=torch.float64)
        if self._meaningful.any():
            weight = weight.masked_scatter(self._meaningful, torch.sigmoid(self.raw_weight))
        return weight

    def place(self, coordinates: Sequence[Tensor | None]) -> None:
        """Move the choices elsewhere; gradients of distances reach the coordinates.

        Args:
            coordinates: one (C, k) for each parameter that has coordinates, None for the others.
        """
        self._coordinates = [_with_absent(one) for one in coordinates]
        self._known = None

    def pairs(self, left: Tensor, right: Tensor) -> _Pairs:
        """Find the pairs of choices between points.

        Args:
            left: (n, c) which choices, -1 for none.
            right: (m, c).
        """
        is_same = torch.equal(left, right)
        if is_same and self._known is not None and torch.equal(left, self._known[0]):
            return self._known[1]
        different, meant, parameter, index = [], [], [], []
        start = 0
        for i, coordinates in enumerate(self._coordinates):
            a, of_left = left[:, i].long().unique(return_inverse=True)
            b, of_right = right[:, i].long().unique(return_inverse=True)
            apart = _apart(a, b)
            different.append(apart.ravel())
            if coordinates is not None:
                apart = _squared_distances(coordinates[a], coordinates[b])
            meant.append(apart.ravel())
            parameter.append(torch.full((apart.numel(),), i))
            index.append(start + of_left[:, None] * len(b) + of_right)
            start += apart.numel()
        found = _Pairs(
            torch.cat(different), torch.cat(meant), torch.cat(parameter), torch.stack(index)
        )
        # Pairs found without gradients, where coordinates move, must not be taken with them later.
        move = any(one is not None and one.requires_grad for one in self._coordinates)
        if is_same and not move:
            self._known = (left, found)
        return found

    def of_pairs(self, pairs: _Pairs) -> Tensor:
        """The squared distance of each pair, (pairs,)."""
        weight = self.weight[pairs.parameter]
        return pairs.different + weight * (pairs.meant - pairs.different)


def distances_of(model: SingleTaskGP) -> ChoiceDistances:
    """Find the distances between choices that the kernels of a process share."""
    modules = model.covar_module.modules()
    return next(module for module in modules if isinstance(module, ChoiceDistances))


def _with_absent(coordinates: Tensor | None) -> Tensor | None:
    """Append the centre as the last row, which the index of an absent choice finds."""
    if coordinates is None:
        return None
    return torch.cat([coordinates, coordinates.new_zeros(1, coordinates.shape[1])])


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances where only equal and different are told apart, (a, b) float64."""
    one_absent = (a == ABSENT)[:, None] | (b == ABSENT)
    distance = torch.where(one_absent, _TO_ABSENT, 1.0).to(torch.float64)
    return distance * (a[:, None] != b)


def _squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Squared Euclidean distances of rows, differentiable everywhere."""
    ones, others = left.square().sum(dim=1), right.square().sum(dim=1)
    return (ones[:, None] + others - 2 * left @ right.T).clamp_min(0)


class NumbersAndChoices(Kernel):
    """The Matern-5/2 kernel on numbers and choices together, and main effects of choices.

        k = v_J M(sum_i D_i / l_i^2) + sum_i v_i M(D_i / a_i^2)

    with D_i the squared difference of a number, or the distance of choices (`ChoiceDistances`).
    The first sum is over all columns, the second over the nominal parameters: what a choice does
    whatever the others are, which few trials tell.

    Args:
        inputs: the columns, the first of the points'.
        distances: of the choices; kernels of one process may share them.
        lengthscale_median: prior median of the l_i.
        least_lengthscale: bound of the l_i.
        ard: whether each column has a lengthscale; else all have one.
        main_effects: whether the second sum is there; without it v_J is 1.
    """

    has_lengthscale = True

    def __init__(
        self,
        inputs: Inputs,
        distances: ChoiceDistances,
        *,
        lengthscale_median: float,
        least_lengthscale: float,
        ard: bool,
        main_effects: bool,
    ) -> None:
        prior = log_normal(lengthscale_median, LENGTHSCALE_STANDARD_DEVIATION)
        super().__init__(
            active_dims=tuple(inputs.columns),
            ard_num_dims=inputs.width if ard else None,
            lengthscale_prior=prior,
            lengthscale_constraint=_above(least_lengthscale, float(prior.mode)),
        )
        self.distances = distances
        self._p = inputs.p
        self._known: tuple[Tensor, Tensor] | None = None
        self._main_effects = main_effects
        if main_effects:
            self._learn("joint_variance", 1, median=1.0, deviation=1.0, least=_LEAST_VARIANCE)
            self._learn(
                "main_variance",
                distances.c,
                median=1 / inputs.width,
                deviation=1.0,
                least=_LEAST_VARIANCE,
            )
            self._learn(
                "main_lengthscale",
                distances.c,
                median=_MAIN_LENGTHSCALE_MEDIAN,
                deviation=LENGTHSCALE_STANDARD_DEVIATION,
                least=LEAST_LENGTHSCALE,
            )

    def _learn(self, name: str, n: int, *, median: float, deviation: float, least: float) -> None:
        """Add n positive hyperparameters with a log-normal prior."""
        start = median if name.endswith("variance") else median * math.exp(-(deviation**2))
        constraint = _above(least, start)
        raw = constraint.inverse_transform(torch.full((n,), max(start, 1.1 * least)))
        self.register_parameter(f"raw_{name}", torch.nn.Parameter(raw))
        self.register_constraint(f"raw_{name}", constraint)
        self.register_prior(
            f"{name}_prior", log_normal(median, deviation), lambda module: module.positive(name)
        )

    def positive(self, name: str) -> Tensor:
        """The hyperparameters of a name: "joint_variance", (1,), "main_variance", (c,), or
        "main_lengthscale", (c,)."""
        constraint = getattr(self, f"raw_{name}_constraint")
        values: Tensor = constraint.transform(getattr(self, f"raw_{name}"))
        return values

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **_: object) -> Tensor:
        """The covariance matrix of x1 (n, columns) and x2 (m, columns), or its diagonal, (n,)."""
        joint = self.positive("joint_variance") if self._main_effects else x1.new_ones(1)
        if diag:
            total = joint.sum()
            if self._main_effects:
                total = total + self.positive("main_variance").sum()
            return total.expand(len(x1))
        p = self._p
        weight = self.lengthscale.expand(1, p + self.distances.c)[0].square().reciprocal()
        x2 = x1 if torch.equal(x1, x2) else x2
        pairs = self.distances.pairs(x1[:, p:], x2[:, p:])
        squared = self.distances.of_pairs(pairs)
        total = (squared * weight[p:][pairs.parameter])[pairs.index].sum(dim=0)
        if p:
            total = total + self._between_numbers(x1[:, :p], x2[:, :p], weight[:p])
        matrix = joint * Matern52OfSquares.apply(total)
        if self._main_effects:
            scale = self.positive("main_lengthscale")[pairs.parameter]
            effects = Matern52OfSquares.apply(squared / scale.square())
            effects = self.positive("main_variance")[pairs.parameter] * effects
            matrix = matrix + effects[pairs.index].sum(dim=0)
        return matrix

    def _between_numbers(self, x1: Tensor, x2: Tensor, weight: Tensor) -> Tensor:
        """The weighted squared distances of numbers, (n, m)."""
        if len(x1) != len(x2) or not torch.equal(x1, x2):
            centre, root = x2.mean(dim=0), weight.sqrt()
            return _squared_distances((x1 - centre) * root, (x2 - centre) * root)
        if self._known is None or not torch.equal(x1, self._known[0]):
            columns = x1.T
            self._known = (x1, (columns[:, :, None] - columns[:, None]).square().flatten(1))
        return (weight @ self._known[1]).view(len(x1), len(x1))


def _above(least: float, start: float) -> GreaterThan:
    return GreaterThan(least, initial_value=max(start, 1.1 * least))
