"""Which acquisition function scores the candidates, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
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


AcquisitionName = Literal["log_nei", "log_ei"]
ACQUISITIONS: tuple[AcquisitionName, ...] = ("log_nei", "log_ei")

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
    pending: Tensor
    """(q, d) features of the running configurations; q may be 0."""
    constraints: Sequence[SingleTaskGP]
    """Models over the same features, each feasible at or below 0."""


def make_scorer(
    situation: Situation, acquisition: AcquisitionName, *, seed: int
) -> Callable[[Tensor], Tensor]:
    """How much candidates are worth trying next, as a function of their features.

    "log_ei" is log expected improvement over the best observed value; "log_nei" its noisy form
    (both: Ament et al. 2023, arXiv:2310.20708), over the best of what the observed configurations
    are really worth, which nobody knows exactly. So it does not return to the best one to see
    whether it was luck, and it takes running trials and constraints into account: with these it
    stands in for "log_ei".

    Args:
        situation: the fitted models and the state of the study.
        acquisition: one of `ACQUISITIONS`.
        seed: of the quasi-random samples of "log_nei".

    Returns:
        (m, d) features -> (m,) float64.
    """
    plain = not situation.constraints and not len(situation.pending)
    with _quiet():
        if plain and acquisition == "log_ei":
            function = LogExpectedImprovement(situation.model, best_f=situation.best)
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


def _noisy(situation: Situation, seed: int) -> AcquisitionFunction:
    constraints = [
        lambda samples, i=i: samples[..., i] for i in range(1, len(situation.constraints) + 1)
    ]
    model = situation.model
    if constraints:
        model = ModelListGP(situation.model, *situation.constraints)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # pruning the baseline draws samples
        return qLogNoisyExpectedImprovement(
            model,
            X_baseline=situation.observed,
            sampler=SobolQMCNormalSampler(torch.Size([_N_SAMPLES]), seed=seed),
            objective=GenericMCObjective(lambda samples, X=None: samples[..., 0]),
            X_pending=situation.pending if len(situation.pending) else None,
            constraints=constraints or None,
            # Without those that cannot be the best it takes a small part of the time.
            prune_baseline=True,
            cache_root=False,
        )
