"""Which acquisition function scores the candidates, and their scores."""

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
"""By the number of objectives, with which the cost of a sample grows fast."""
_CHUNK = 4096


@dataclass(frozen=True)
class AcquisitionInputs:
    """What an acquisition function needs to know beside the candidates."""

    model: Model
    """Of the k standardized targets, all maximized."""
    observed: Tensor
    """(n, d) features of the observed configurations."""
    targets: Tensor
    """(m, k) standardized targets so far, of feasible trials if there are any."""
    pending: Tensor
    """(q, d) features of the running configurations; q may be 0."""
    constraints: Sequence[SingleTaskGP]
    """Models over the same features, each feasible at or below 0."""


def make_scorer(
    situation: AcquisitionInputs, acquisition: AcquisitionName, *, seed: int
) -> Callable[[Tensor], Tensor]:
    """How much candidates are worth trying next, as a function of their features.

    With several objectives it is the logarithm of how much the noisy hypervolume that the
    observed configurations dominate is expected to grow (Daulton, Balandat & Bakshy 2021,
    arXiv:2105.08195). With one, "log_ei" is log expected improvement over the best observed value;
    "log_nei" its noisy form (all: Ament et al. 2023, arXiv:2310.20708), over the best of what the
    observed configurations are really worth, which nobody knows exactly. So it does not return to
    the best one to see whether it was luck, and it takes running trials and constraints into
    account: with these it stands in for "log_ei".

    Args:
        situation: the fitted models and the state of the study.
        acquisition: one of `ACQUISITIONS`.
        seed: of the quasi-random samples of "log_nei".

    Returns:
        (m, d) features -> (m,) float64.
    """
    k = situation.targets.shape[1]
    plain = not situation.constraints and not len(situation.pending)
    with _quiet():
        if k > 1:
            function = _hypervolume(situation, k, seed)
        elif plain and acquisition == "log_ei":
            function = LogExpectedImprovement(situation.model, best_f=situation.targets.max())
        else:
            function = _noisy(situation, seed)

    def score(candidates: Tensor) -> Tensor:
        with _quiet():
            chunks = candidates[:, None, :].split(_CHUNK)
            return torch.cat([function(chunk) for chunk in chunks])

    return score


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, one thread, and no word of added jitter or of nothing being feasible yet: no
    news for a study's user."""
    with torch.no_grad(), one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        yield


def _noisy(situation: AcquisitionInputs, seed: int) -> AcquisitionFunction:
    with _seeded(seed):
        return qLogNoisyExpectedImprovement(
            **_common(situation, 1, seed),
            objective=GenericMCObjective(lambda samples, X=None: samples[..., 0]),
        )


def _hypervolume(situation: AcquisitionInputs, k: int, seed: int) -> AcquisitionFunction:
    best = situation.targets[is_non_dominated(situation.targets)]
    with _seeded(seed):
        return qLogNoisyExpectedHypervolumeImprovement(
            **_common(situation, k, seed),
            ref_point=infer_reference_point(best),
            objective=IdentityMCMultiOutputObjective(outcomes=list(range(k))),
        )


def _common(situation: AcquisitionInputs, k: int, seed: int) -> dict[str, Any]:
    """Arguments of the noisy functions; the models' outputs are the k targets, the constraints."""
    constraints = [
        lambda samples, i=k + i: samples[..., i] for i in range(len(situation.constraints))
    ]
    targets = (
        situation.model.models if isinstance(situation.model, ModelListGP) else [situation.model]
    )
    return {
        "model": JointPosteriors([*targets, *situation.constraints]),
        "X_baseline": situation.observed,
        "sampler": SobolQMCNormalSampler(torch.Size([_N_SAMPLES[k]]), seed=seed),
        "X_pending": situation.pending if len(situation.pending) else None,
        "constraints": constraints or None,
        # Without those that cannot be the best it takes a small part of the time.
        "prune_baseline": True,
        "cache_root": False,
    }


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # pruning the baseline draws samples
        yield
