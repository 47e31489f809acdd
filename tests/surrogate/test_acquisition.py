from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.acquisition import AcquisitionInputs
from optuna_llmbo.surrogate.acquisition import AcquisitionName
from optuna_llmbo.surrogate.acquisition import make_scorer
from optuna_llmbo.surrogate.feasibility import fit_constraints
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views


X = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None]
Y = -((X[:, 0] - 0.6) ** 2)
PLACES = torch.linspace(0, 1, 41, dtype=torch.float64)
CANDIDATES = pad(PLACES[:, None], (0, 2))  # no gap, this study
NONE = CANDIDATES[:0]


def situation(pending: torch.Tensor = NONE, over: float | None = None) -> AcquisitionInputs:
    y = (Y - Y.mean()) / Y.std()
    surrogate = fit_surrogate(Views(X), y, "numeric", Views(X), Ablation())
    constraints = {} if over is None else {"c": X[:, 0].numpy() - over}
    return AcquisitionInputs(
        model=surrogate.model,
        observed=surrogate.observed,
        targets=y[:, None],
        pending=pending,
        constraints=fit_constraints(surrogate.observed, 1, constraints, torch.zeros(0, 0)),
    )


def test_log_ei_is_log_expected_improvement() -> None:
    here = situation()
    scores = make_scorer(here, "log_ei", seed=0)(CANDIDATES)
    with torch.no_grad():
        posterior = here.model.posterior(CANDIDATES)
    for i in (0, 17, 40):
        mean, deviation = float(posterior.mean[i, 0]), math.sqrt(float(posterior.variance[i, 0]))
        z = (mpmath.mpf(mean) - float(here.targets.max())) / deviation
        ei = deviation * (mpmath.npdf(z) + z * mpmath.ncdf(z))
        assert float(scores[i]) == pytest.approx(float(mpmath.log(ei)), rel=1e-4)


@pytest.mark.parametrize("acquisition", ["log_ei", "log_nei"])
def test_the_best_candidate_is_near_the_optimum(acquisition: AcquisitionName) -> None:
    scores = make_scorer(situation(), acquisition, seed=0)(CANDIDATES)
    assert scores.shape == (41,) and torch.isfinite(scores).all()
    assert abs(float(PLACES[scores.argmax()]) - 0.6) < 0.15


def test_running_trials_push_away() -> None:
    free = make_scorer(situation(), "log_nei", seed=0)(CANDIDATES)
    top = int(free.argmax())
    pending = CANDIDATES[top : top + 1]
    busy = make_scorer(situation(pending=pending), "log_nei", seed=0)(CANDIDATES)
    assert int(busy.argmax()) != top
    assert busy[top] - busy.max() < free[top] - free.max()


def test_constraints_forbid() -> None:
    scores = make_scorer(situation(over=0.4), "log_nei", seed=0)(CANDIDATES)
    assert float(PLACES[scores.argmax()]) <= 0.45


def test_same_seed_same_scores() -> None:
    pending = torch.tensor([[0.6, 0.0, 0.0]], dtype=torch.float64)
    a, b = (
        make_scorer(situation(pending=pending), "log_nei", seed=3)(CANDIDATES) for _ in range(2)
    )
    np.testing.assert_array_equal(a.numpy(), b.numpy())
