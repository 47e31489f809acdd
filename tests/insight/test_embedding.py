"""The map keeps the process's distances."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.insight import examine
from optuna_llmbo.insight.embedding import principal_axes
from tests.insight.studies import add
from tests.insight.studies import bowl
from tests.insight.studies import PLANE
from tests.insight.studies import study_of


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_a_plane_is_mapped_as_it_is() -> None:
    """A linear covariance of points in a plane: their distances, whatever the origin."""
    points = np.random.default_rng(0).normal(size=(20, 2)) * [3.0, 1.0]
    axes, share = principal_axes((points + 7) @ (points + 7).T)
    np.testing.assert_allclose(distances(axes), distances(points), atol=1e-6)
    assert share == pytest.approx(1.0)


def test_the_share_and_the_order_of_the_axes() -> None:
    points = np.random.default_rng(0).normal(size=(400, 3)) * [1.0, 3.0, 2.0]
    axes, share = principal_axes(points @ points.T)
    variances = np.linalg.svd(points - points.mean(axis=0))[1] ** 2
    np.testing.assert_allclose((axes**2).sum(axis=0), variances[:2], rtol=1e-6)
    assert share == pytest.approx(variances[:2].sum() / variances.sum())


def test_nothing_to_tell_apart() -> None:
    axes, share = principal_axes(np.ones((4, 4)))
    assert share == 1.0 and np.allclose(axes, 0.0, atol=1e-6)
    assert principal_axes(np.ones((1, 1)))[0].shape == (1, 2)


def test_a_studys_map() -> None:
    study = study_of(PLANE, bowl, 12)
    add(study, dict(study.trials[3].params), PLANE, study.trials[3].value)
    found = examine(study, LLMBOSampler(seed=0)).map
    assert found is not None and not found.has_text and 0.3 < found.share <= 1.0
    assert found.best == study.best_trial.number
    places = {trial.number: place for trial, place in found.tried}
    assert len(places) == 13 and len(found.candidates) == 256 and len(found.next) >= 2
    assert (places[3].x, places[3].y) == pytest.approx((places[12].x, places[12].y), abs=1e-6)
    best = min(places.values(), key=lambda place: place.mean)
    assert best in (places[found.best], places[3])
    # in a plane with smooth values near places have near means
    everywhere = [*found.candidates, *places.values()]
    points = np.array([(p.x, p.y) for p in everywhere])
    means = np.array([p.mean for p in everywhere])
    near = distances(points) + 9 * np.eye(len(points))
    anyone = np.random.default_rng(0).permutation(len(means))
    of_near, of_any = (np.abs(means - means[i]) for i in (near.argmin(axis=1), anyone))
    assert np.median(of_near) < 0.4 * np.median(of_any)
