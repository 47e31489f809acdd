"""Which acquisition function scores the candidates, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
import warnings

from botorch.acquisition import AcquisitionFunction
from botorch.acquisition import GenericMCObjective
from botorch.acquisition import LogExpectedImprovement
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.exceptions import BotorchWarning
from botorch.models import ModelListGP
from botorch.models import SingleTaskGP
from botorch.sampling import SobolQMCNormalSampler
from linear_operator.utils.warnings import NumericalWarning
import torch
from torch import Tensor

from optuna_llmbo.torch_state import one_thread


AcquisitionName = Literal["auto", "log_ei", "log_nei"]
ACQUISITIONS: tuple[AcquisitionName, ...] = ("auto", "log_ei", "log_nei")

SMALL_NOISE = 0.05
"""Below this share of the targets' variance the best observed value is taken at its word."""

_N_SAMPLES = 128
_CHUNK = 4096


@dataclass(frozen=True)
class Situation:
    """What an acquisition function needs to know beside the candidates."""

    model: SingleTaskGP
    """Of the standardized target, maximized."""
    observed: Tensor
    """(n, d) features of the observed configurations."""
    best: float
    """Highest standardized target so far."""
    noise: float
    """Inferred variance of the noise."""
    pending: Tensor
    """(q, d) features of the running configurations; q may be 0."""
    constraints: Sequence[SingleTaskGP]
    """Models over the same features, each feasible at or below 0."""


def score_candidates(
    candidates: Tensor, situation: Situation, acquisition: AcquisitionName, *, seed: int
) -> Tensor:
    """How much each candidate is worth trying next, (m,) float64.

    "log_ei" is log expected improvement (Ament et al. 2023, arXiv:2310.20708); "log_nei" its
    noisy form, integrated over the best value, which also takes running trials and constraints
    into account. "auto" takes the first where the noise is below `SMALL_NOISE` and there is
    nothing pending or constrained, else the second.

    Args:
        candidates: (m, d) features.
        situation: the fitted models and the state of the study.
        acquisition: one of `ACQUISITIONS`.
        seed: of the quasi-random samples of "log_nei".
    """
    with torch.no_grad(), one_thread(), warnings.catch_warnings():
        # Added jitter, and that nothing observed is feasible yet: no news for a study's user.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        function = _choose(situation, acquisition, seed)
        chunks = candidates[:, None, :].split(_CHUNK)
        return torch.cat([function(chunk) for chunk in chunks])


def _choose(situation: Situation, acquisition: AcquisitionName, seed: int) -> AcquisitionFunction:
    plain = not situation.constraints and not len(situation.pending)
    quiet = situation.noise < SMALL_NOISE
    if plain and (acquisition == "log_ei" or (acquisition == "auto" and quiet)):
        return LogExpectedImprovement(situation.model, best_f=situation.best)
    return _noisy(situation, seed)


def _noisy(situation: Situation, seed: int) -> AcquisitionFunction:
    constraints = [
        lambda samples, i=i: samples[..., i] for i in range(1, len(situation.constraints) + 1)
    ]
    model = situation.model
    if constraints:
        model = ModelListGP(situation.model, *situation.constraints)
    return qLogNoisyExpectedImprovement(
        model,
        X_baseline=situation.observed,
        sampler=SobolQMCNormalSampler(torch.Size([_N_SAMPLES]), seed=seed),
        objective=GenericMCObjective(lambda samples, X=None: samples[..., 0]),
        X_pending=situation.pending if len(situation.pending) else None,
        constraints=constraints or None,
        prune_baseline=False,
        cache_root=False,
    )
