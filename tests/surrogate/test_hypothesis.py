from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import covariance
from optuna_llmbo.surrogate.covariance import Layout
from optuna_llmbo.surrogate.hypothesis import PRIOR_TRUST
from optuna_llmbo.surrogate.hypothesis import trust
from optuna_llmbo.surrogate.process import fit_process


def fitted(features: np.ndarray, targets: np.ndarray):  # type: ignore[no-untyped-def]
    layout = Layout(Inputs(features.shape[1]), k=0, has_gaps=False, n_sources=0)
    padded = np.hstack([features, np.zeros((len(features), 2))])
    standardized = (targets - targets.mean()) / (targets.std() or 1.0)
    return fit_process(
        torch.from_numpy(padded),
        torch.from_numpy(standardized),
        lambda: covariance("numeric", layout),
    )


def bowl(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a square, and a target that is best at (0.7, 0.3)."""
    points = np.random.default_rng(seed).random((n, 2))
    return points, -((points - [0.7, 0.3]) ** 2).sum(axis=1)


def expected_at(points: np.ndarray, centre: list[float]) -> torch.Tensor:
    density = -((points - centre) ** 2).sum(axis=1)
    return torch.from_numpy((density + 0.2) / 0.2)


@pytest.mark.parametrize("seed", range(5))
def test_right_knowledge_is_trusted_and_wrong_knowledge_is_overruled(seed: int) -> None:
    points, targets = bowl(10, seed)
    process = fitted(points, targets)
    right = trust([process], expected_at(points, [0.7, 0.3]))
    wrong = trust([process], expected_at(points, [0.0, 1.0]))
    assert wrong < 0.35 < PRIOR_TRUST < right


def test_what_nothing_was_learned_of_keeps_its_prior() -> None:
    points, targets = bowl(8, 0)
    process = fitted(points, targets)
    assert trust([process], torch.zeros(8, dtype=torch.float64)) == pytest.approx(PRIOR_TRUST)


def test_of_several_objectives_one_is_enough() -> None:
    points, targets = bowl(10, 0)
    other = -targets
    processes = [fitted(points, other), fitted(points, targets)]
    expected = expected_at(points, [0.7, 0.3])
    assert trust(processes, expected) == trust(processes[1:], expected)
    assert trust(processes[:1], expected) < PRIOR_TRUST


def test_overwhelming_evidence_is_finite() -> None:
    points, targets = bowl(60, 0)
    process = fitted(points, targets)
    assert 0 < trust([process], 100 * expected_at(points, [0.7, 0.3])) < 1
