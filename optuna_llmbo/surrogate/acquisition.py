"""The acquisition functions that score candidates.

Shapes: n observed, m candidates, q objectives, c constraints.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from typing import Literal
import warnings

from botorch.acquisition import AcquisitionFunction
from botorch.acquisition import GenericMCObjective
from botorch.acquisition import LogExpectedImprovement
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.exceptions import BotorchWarning
from botorch.models import ModelListGP
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from linear_operator.utils.warnings import NumericalWarning
import torch
from torch import Tensor

from optuna_llmbo._util.torch_state import one_thread
from optuna_llmbo.surrogate.joint_posterior import JointPosteriors


AcquisitionName = Literal["log_nei", "log_ei"]
ACQUISITIONS: tuple[AcquisitionName, ...] = ("log_nei", "log_ei")

_N_SAMPLES = {1: 128, 2: 32, 3: 16, 4: 8}
"""Monte Carlo samples by number of objectives: the cost of a sample grows fast with it."""
_CHUNK = 4096


@dataclass(frozen=True)
class AcquisitionInputs:
    """What an acquisition function is given besides the candidates."""

    model: Model
    """A model of the q standardized targets, all maximized."""
    observed: Tensor
    """(n, columns) features of the observed configurations."""
    targets: Tensor
    """(rows, q) standardized targets to improve on, of feasible trials if there are any."""
    pending: Tensor
    """(running, columns) features of the running configurations; may have no rows."""
    constraints: Sequence[SingleTaskGP]
    """c models over the same features, each feasible at or below 0."""


def make_scorer(
    inputs: AcquisitionInputs, acquisition: AcquisitionName, *, seed: int
) -> Callable[[Tensor], Tensor]:
    """Make the function that scores candidates: how much they are worth trying next.

    With several objectives the score is the logarithm of the expected growth of the noisy
    hypervolume that the observed configurations dominate (Daulton, Balandat & Bakshy 2021,
    arXiv:2105.08195). With one, "log_ei" is log expected improvement over the best observed value;
    "log_nei" its noisy form (all: Ament et al. 2023, arXiv:2310.20708), over the best noise-free
    value among the observed configurations, which nobody knows exactly. So it does not return to
    the best one to see whether it was luck. It takes running trials and constraints into account,
    and where there are any it replaces "log_ei".

    Args:
        inputs: the fitted models and the state of the study.
        acquisition: one of `ACQUISITIONS`.
        seed: decides the quasi-random samples of "log_nei".

    Returns:
        A function from features (m, columns) to scores (m,) float64.
    """
    q = inputs.targets.shape[1]
    plain = not inputs.constraints and not len(inputs.pending)
    with _quiet():
        if q > 1:
            function = _hypervolume(inputs, q, seed)
        elif plain and acquisition == "log_ei":
            function = LogExpectedImprovement(inputs.model, best_f=inputs.targets.max())
        else:
            function = _noisy(inputs, seed)

    def score(candidates: Tensor) -> Tensor:
        with _quiet():
            chunks = candidates[:, None, :].split(_CHUNK)
            return torch.cat([function(chunk) for chunk in chunks])

    return score


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, one thread, and no warnings of added jitter or of nothing being feasible yet,
    which tell a study's user nothing."""
    with torch.no_grad(), one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        yield


def _noisy(inputs: AcquisitionInputs, seed: int) -> AcquisitionFunction:
    with _seeded(seed):
        return qLogNoisyExpectedImprovement(
            **_common(inputs, 1, seed),
            objective=GenericMCObjective(lambda samples, X=None: samples[..., 0]),
        )


def _hypervolume(inputs: AcquisitionInputs, q: int, seed: int) -> AcquisitionFunction:
    best = inputs.targets[is_non_dominated(inputs.targets)]
    with _seeded(seed):
        return qLogNoisyExpectedHypervolumeImprovement(
            **_common(inputs, q, seed),
            ref_point=infer_reference_point(best),
            objective=IdentityMCMultiOutputObjective(outcomes=list(range(q))),
        )


def _common(inputs: AcquisitionInputs, q: int, seed: int) -> dict[str, Any]:
    """Arguments of the noisy functions; the models' outputs are q targets, then constraints."""
    constraints = [
        lambda samples, i=q + i: samples[..., i] for i in range(len(inputs.constraints))
    ]
    targets = inputs.model.models if isinstance(inputs.model, ModelListGP) else [inputs.model]
    return {
        "model": JointPosteriors([*targets, *inputs.constraints]),
        "X_baseline": inputs.observed,
        "sampler": SobolQMCNormalSampler(torch.Size([_N_SAMPLES[q]]), seed=seed),
        "X_pending": inputs.pending if len(inputs.pending) else None,
        "constraints": constraints or None,
        # Leaving out points that cannot be the best takes a fraction of the time.
        "prune_baseline": True,
        "cache_root": False,
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # pruning the baseline draws samples
        yield
