from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.feasibility import fit_constraints


X = torch.linspace(0, 1, 10, dtype=torch.float64)[:, None]
NUMBER = Inputs(1)


def features(numeric: Tensor, rest: float = 0.0) -> Tensor:
    """One number, then text, gap and source, which no constraint is a matter of."""
    return torch.cat([numeric, torch.full((len(numeric), 4), rest).to(numeric)], dim=1)


def test_constraints_keep_their_sign() -> None:
    over = (X[:, 0] - 0.5).numpy()
    missing = over.copy()
    missing[0] = math.nan
    failed = torch.tensor([[1.0], [0.95]], dtype=torch.float64)
    model, second, feasible = fit_constraints(X, NUMBER, {"a": over * 1e3, "b": missing}, failed)
    with torch.no_grad():
        for fitted in (model, second):
            mean = fitted.posterior(X).mean[:, 0]
            assert mean[0] < 0 < mean[-1]
        mean = feasible.posterior(torch.tensor([[0.0], [1.0]], dtype=torch.float64)).mean[:, 0]
        assert mean[0] < mean[1]


def test_only_the_numbers_decide() -> None:
    over = (X[:, 0] - 0.5).numpy()
    failed = torch.tensor([[0.9], [1.0]], dtype=torch.float64)
    for model in fit_constraints(features(X), NUMBER, {"a": over}, failed):
        with torch.no_grad():
            plain, other = (model.posterior(features(X, rest)).mean for rest in (0.0, 5.0))
        torch.testing.assert_close(plain, other)


def test_constraints_are_in_the_order_of_their_names() -> None:
    over = (X[:, 0] - 0.5).numpy()
    first, second = fit_constraints(X, NUMBER, {"b": -over, "a": over}, X[:0])
    with torch.no_grad():
        slopes = [float(m.posterior(X).mean[-1] - m.posterior(X).mean[0]) for m in (first, second)]
    assert slopes[0] > 0 > slopes[1]


@pytest.mark.parametrize("value", [0.0, -3.0, math.inf, -math.inf])
def test_a_constraint_that_is_always_the_same(value: float) -> None:
    (model,) = fit_constraints(X, NUMBER, {"a": np.full(10, value)}, X[:0])
    with torch.no_grad():
        mean = model.posterior(X).mean[:, 0].numpy()
    assert np.isfinite(mean).all()
    np.testing.assert_allclose(np.sign(np.round(mean, 3)), np.sign(value))


def test_nothing_to_heed() -> None:
    assert fit_constraints(X, NUMBER, {"a": np.full(10, math.nan)}, X[:0]) == []
    assert fit_constraints(X, NUMBER, {}, torch.zeros(0, 0, dtype=torch.float64)) == []
