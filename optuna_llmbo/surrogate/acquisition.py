"""The acquisition functions that score candidates.

Shapes: n observed, m candidates, q objectives, N draws, s points that values are drawn at, K cells
of a box decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Literal

from botorch.utils.multi_objective.box_decompositions.box_decomposition_list import (
    BoxDecompositionList,
)
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
)
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from botorch.utils.safe_math import logdiffexp
import torch
from torch import Tensor

from optuna_llmbo.surrogate.posterior import draw
from optuna_llmbo.surrogate.posterior import Drawn
from optuna_llmbo.surrogate.posterior import Posterior


AcquisitionName = Literal["log_nei", "log_ei"]
ACQUISITIONS: tuple[AcquisitionName, ...] = ("log_nei", "log_ei")

_N_DRAWS = {1: 32, 2: 32, 3: 16, 4: 8}
"""Draws by number of objectives: the number of cells grows fast with it."""
_LEAST_DRAWS = 4
_N_DRAWS_TO_PRUNE = 256
_MOST_TO_IMPROVE_ON = {1: 64, 2: 128, 3: 64, 4: 32}
"""Observed configurations that are drawn: those that are most often the best of all."""
_NUMBERS_AT_ONCE = 2**21
_FAR = 1e5
"""Standard scores beyond which log h is computed from its asymptote."""


@dataclass(frozen=True)
class AcquisitionInputs:
    """What an acquisition function is given besides the candidates."""

    objectives: Sequence[Posterior]
    """q processes of the standardized targets, all maximized."""
    observed: Tensor
    """(n, columns) features of the observed configurations."""
    targets: Tensor
    """(rows, q) standardized targets to improve on, of feasible trials if there are any."""
    pending: Tensor
    """(running, columns) features of the running configurations; may have no rows."""
    constraints: Sequence[Posterior]
    """Processes over the same features, each feasible at or below 0."""


def make_mixed_scorer(
    members: Sequence[AcquisitionInputs], acquisition: AcquisitionName, *, seed: int
) -> Callable[[Tensor], Tensor]:
    """Make a function that scores candidates by their mean over several models.

    Args:
        members: the same state with each model, all as likely; they share the draws.
        acquisition: one of `ACQUISITIONS`.
        seed: decides the draws.

    Returns:
        As `make_scorer`.
    """
    scorers = [
        make_scorer(member, acquisition, seed=seed + i, share=1 / len(members))
        for i, member in enumerate(members)
    ]
    return lambda candidates: (
        torch.stack([score(candidates) for score in scorers]).logsumexp(dim=0)
        - math.log(len(scorers))
    )


def make_scorer(
    inputs: AcquisitionInputs, acquisition: AcquisitionName, *, seed: int, share: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Make the function that scores candidates: how much they are worth trying next.

    "log_ei" is the logarithm of the expected improvement over the best observed value; "log_nei"
    its noisy form, over the best noise-free value among the observed configurations, which nobody
    knows exactly (Letham et al. 2019, arXiv:1706.07094; logarithms: Ament et al. 2023,
    arXiv:2310.20708). So it does not return to the best one to see whether it was luck. With
    several objectives the improvement is the growth of the hypervolume that the observed
    configurations dominate (Daulton, Balandat & Bakshy 2021, arXiv:2105.08195).

    The values at the observed and the running configurations are drawn; given them, a candidate's
    expected improvement and its probability of being feasible have closed forms. Running trials
    count with their drawn values. Where there are any, or constraints or several objectives,
    "log_nei" replaces "log_ei".

    Args:
        inputs: the fitted models and the state of the study.
        acquisition: one of `ACQUISITIONS`.
        seed: decides the draws.
        share: of the usual number of draws.

    Returns:
        A function from features (m, columns) to scores (m,) float64.
    """
    q = len(inputs.objectives)
    noisy = acquisition == "log_nei" or q > 1 or inputs.constraints or len(inputs.pending)
    with torch.no_grad():
        if noisy:
            places = torch.cat([_may_be_best(inputs, seed), inputs.pending])
        else:
            places = inputs.observed[:0]
        processes = [*inputs.objectives, *inputs.constraints]
        n = max(_LEAST_DRAWS, round(_N_DRAWS[q] * share)) if noisy else 1
        drawn = draw(processes, places, n, seed)
        objectives, constraints = drawn[:q], drawn[q:]
        if noisy:
            cells = _cells(_feasible_values(inputs, drawn), _worst(inputs))
        else:
            cells = _above(inputs.targets.max(dim=0).values[None])

    def score(candidates: Tensor) -> Tensor:
        with torch.no_grad():
            at_once = max(1, _NUMBERS_AT_ONCE // cells.lower.numel())
            parts = candidates.split(at_once)
            return torch.cat([_scores(part, objectives, constraints, cells) for part in parts])

    return score


@dataclass(frozen=True)
class _Cells:
    """What is not dominated, as cells, for each draw."""

    lower: Tensor
    """(N, K, q)."""
    upper: Tensor | None
    """(N, K, q); None: infinite everywhere."""


def _scores(
    candidates: Tensor, objectives: Sequence[Drawn], constraints: Sequence[Drawn], cells: _Cells
) -> Tensor:
    """Logarithm of the mean over draws of the expected improvement times the probability of being
    feasible, (m,)."""
    volume: Tensor | float = 0.0  # (N, K, m)
    for j, objective in enumerate(objectives):
        mean, sd = objective.moments(candidates)
        gain = _log_mean_above(cells.lower[:, :, j, None], mean[:, None], sd)
        if cells.upper is not None:
            beyond = _log_mean_above(cells.upper[:, :, j, None], mean[:, None], sd)
            gain = logdiffexp(torch.minimum(beyond, gain), gain)
        volume = volume + gain
    assert isinstance(volume, Tensor)
    logs = volume.logsumexp(dim=1) if volume.shape[1] > 1 else volume[:, 0]
    for constraint in constraints:
        mean, sd = constraint.moments(candidates)
        logs = logs + torch.special.log_ndtr(-mean / sd)
    return logs.logsumexp(dim=0) - math.log(len(logs))


def _log_mean_above(bound: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """log E[max(f - bound, 0)] of a normal variable f; -inf where the bound is infinite."""
    score = (mean - bound) / sd
    return sd.log() + _log_h(score)


def _log_h(z: Tensor) -> Tensor:
    """log(phi(z) + z Phi(z)), to full precision for any z (Ament et al. 2023, eq. 9)."""
    logs = torch.empty_like(z)
    is_near = z > -1
    near, far = z[is_near], -z[~is_near]
    density = torch.exp(near.square() / -2) / math.sqrt(2 * math.pi)
    logs[is_near] = torch.log(density + near * torch.special.ndtr(near))
    # Where the asymptote takes over, 1 - far * tail has no digits left.
    tail = torch.special.erfcx(far.clamp(max=_FAR) / math.sqrt(2)) * math.sqrt(math.pi / 2)
    rest = torch.log1p(-far.clamp(max=_FAR) * tail)
    rest = torch.where(far < _FAR, rest, -2 * far.log())
    logs[~is_near] = rest - far.square() / 2 - math.log(2 * math.pi) / 2
    return logs


def _may_be_best(inputs: AcquisitionInputs, seed: int) -> Tensor:
    """The observed configurations that are the best, or not dominated, in some draw, (s, columns).

    The others cannot be improved on, and leaving them out takes a fraction of the time.
    """
    q = len(inputs.objectives)
    processes = [*inputs.objectives, *inputs.constraints]
    values = _feasible_values(inputs, draw(processes, inputs.observed, _N_DRAWS_TO_PRUNE, seed))
    if q == 1:
        best = (values == values.max(dim=1, keepdim=True).values)[..., 0]
    else:
        best = is_non_dominated(values)
    counts = (best & values.isfinite().all(dim=2)).sum(dim=0)
    order = torch.argsort(counts, descending=True, stable=True)[: _MOST_TO_IMPROVE_ON[q]]
    return inputs.observed[order[counts[order] > 0].sort().values]


def _feasible_values(inputs: AcquisitionInputs, drawn: Sequence[Drawn]) -> Tensor:
    """The drawn values, (N, s, q), -inf for all objectives where a constraint is broken."""
    q = len(inputs.objectives)
    values = torch.stack([objective.values for objective in drawn[:q]], dim=2)
    for constraint in drawn[q:]:
        values = values.masked_fill((constraint.values > 0)[..., None], -math.inf)
    return values


def _worst(inputs: AcquisitionInputs) -> Tensor:
    """What to improve on where nothing is feasible, or with several objectives on each, (q,)."""
    if inputs.targets.shape[1] == 1:
        return inputs.targets.min(dim=0).values - 1
    reference: Tensor = infer_reference_point(inputs.targets[is_non_dominated(inputs.targets)])
    return reference


def _cells(values: Tensor, worst: Tensor) -> _Cells:
    """The cells above values (N, s, q), of which some may be -inf, and above the worst (q,)."""
    values = torch.cat([values.maximum(worst), worst.expand(len(values), 1, -1)], dim=1)
    if len(worst) == 1:
        return _above(values.max(dim=1).values)
    fronts = [FastNondominatedPartitioning(worst, draws) for draws in values]
    lower, upper = BoxDecompositionList(*fronts).get_hypercell_bounds()
    return _Cells(lower, upper)


def _above(bounds: Tensor) -> _Cells:
    """One cell above each draw's bound, (N, 1)."""
    return _Cells(bounds[:, None], None)
