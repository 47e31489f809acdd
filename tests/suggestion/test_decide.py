from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
from scipy.stats import norm
import torch

from optuna_llmbo.embedding.encoder import Encoder
from optuna_llmbo.embedding.encoder import Reading
from optuna_llmbo.embedding.language_model import load_model
from optuna_llmbo.embedding.language_model import resolve_source
from optuna_llmbo.knowledge import Knowledge
from optuna_llmbo.space.prior import Prior
from optuna_llmbo.space.prompt import Prompt
from optuna_llmbo.space.search_space import Configuration
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.branches import read_branches
from optuna_llmbo.study.history import History
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.suggestion.candidates import Region
from optuna_llmbo.suggestion.decide import Prediction
from optuna_llmbo.suggestion.decide import Reader
from optuna_llmbo.suggestion.decide import Suggestion
from optuna_llmbo.surrogate import observations
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.process import Views


PLANE = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in "xy"})
MIXED: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "n": IntDistribution(1, 3),
    "c": CategoricalDistribution(("a", "b")),
}


def bowl(points: np.ndarray) -> np.ndarray:
    values: np.ndarray = -((points - 0.4) ** 2).sum(axis=1, keepdims=True)
    return values


def suggestion(
    space: SearchSpace = PLANE, *, n: int = 12, seed: int = 0, **changes: object
) -> Suggestion:
    """After n observations of a bowl."""
    points = space.snap(np.random.default_rng(7).random((n, len(space.names))))
    configurations = tuple(space.from_unit(points))
    known: dict[str, object] = {
        "configurations": configurations,
        "targets": bowl(points),
        "gaps": np.zeros(n),
        "seconds": np.ones(n),
        "constraints": {},
        "infeasible": (),
        "pending": (),
        "seen": frozenset(space.keys(points)),
    }
    known.update({name: changes.pop(name) for name in [*changes] if name in known})
    options: dict[str, object] = {
        "sources": (),
        "knowledge": Knowledge(),
        "prior": Prior(space, {}),
        "design": Ablation(),
        "n_candidates": 12,
        "acquisition": "log_nei",
        "cost_aware": False,
        **changes,
    }
    region = Region(read_branches((), space.distributions))
    return Suggestion(region=region, history=History(**known), seed=seed, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Known: nothing.\n")


@pytest.fixture
def readings(encoder: Encoder) -> tuple[list[Sequence[Configuration]], Callable[..., Reader]]:
    """What was read, and a reader for a space that notes it."""
    noted: list[Sequence[Configuration]] = []

    def reader(space: SearchSpace) -> Reader:
        prompt = Prompt(space, Knowledge())

        def read(configurations: Sequence[Configuration]) -> Reading:
            noted.append(configurations)
            return encoder.read([prompt.assignment(c) for c in configurations])

        return read

    return noted, reader


def test_local_search_finds_better_than_the_pool() -> None:
    """By the same surrogate's scores; the minimum of a bowl is found to a thousandth."""
    pool = PLANE.snap(np.random.default_rng(0).random((256, 2)))
    found, score_of = {}, {}
    for rounds in (5, 0):
        asked = suggestion(n=25, design=Ablation(refinements=rounds, prior_strength=0.0))
        score_of[rounds] = score = asked.judge("numeric", None, pool)
        found[rounds] = asked._climb(pool, score(pool), score, np.random.default_rng(1))
    best = pool[score_of[0](pool).argmax()]
    np.testing.assert_array_equal(found[0], best)
    assert score_of[5](found[5][None])[0] > score_of[5](best[None])[0]


@pytest.mark.parametrize("space", [PLANE, SearchSpace(MIXED)], ids=["plane", "mixed"])
@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_new_and_in_the_space(space: SearchSpace, seed: int) -> None:
    asked = suggestion(space, seed=seed)
    chosen = asked.choose("numeric", None).configuration
    assert set(chosen) == set(space.names) and space.contains(chosen)
    assert space.key(chosen) not in asked.history.seen


def test_the_seed_decides() -> None:
    chosen = [suggestion(seed=seed).choose("numeric", None).configuration for seed in (3, 3, 4)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_running_trials_are_kept_away_from() -> None:
    free = suggestion().choose("numeric", None).configuration
    key = PLANE.key(free)
    busy = suggestion(pending=(free,), seen=suggestion().history.seen | {key})
    chosen = busy.choose("numeric", None).configuration
    apart = np.abs(PLANE.to_unit([chosen]) - PLANE.to_unit([free])).max()
    assert apart > 0.02


def test_all_there_is_to_know_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """More observations than are fitted to, with constraints, failures, durations, sources."""
    monkeypatch.setattr(observations, "MAX_OBSERVED", 10)
    rng = np.random.default_rng(0)
    n = 30
    x = np.array([c["x"] for c in suggestion(n=n).history.configurations])
    gaps = np.where(rng.random(n) < 0.5, 0.5, 0.0)
    asked = suggestion(
        n=n,
        gaps=gaps,
        seconds=np.where(gaps > 0, np.nan, 1 + x),
        constraints={"memory": x - 0.3, "odd": np.full(n, np.nan)},
        infeasible=({"x": 0.9, "y": 0.9}, {"x": 0.95, "y": 0.8}),
        pending=({"x": 0.2, "y": 0.4},),
        sources=(SourceObservations(rng.random((8, 2)), rng.normal(size=(8, 1))),),
        prior=Prior(PLANE, {"y": (0.3, 0.5)}),
        design=Ablation(prior_strength=1.0),
        cost_aware=True,
    )
    chosen = asked.choose("numeric", None)
    assert chosen.configuration["x"] < 0.4 and chosen == asked.choose("numeric", None)


def test_predictions_do_not_depend_on_the_company() -> None:
    asked = suggestion(n=20)
    configurations = PLANE.from_unit(np.random.default_rng(1).random((6, 2)))
    together = asked.predict(configurations, "numeric", None)
    for i, configuration in enumerate(configurations):
        (alone,) = asked.predict([configuration], "numeric", None)
        for end in ("low", "mean", "high"):
            assert getattr(alone, end) == pytest.approx(getattr(together[i], end), abs=1e-9)


def test_the_interval_is_the_central_95_percent() -> None:
    targets = 30 + 4 * np.random.default_rng(2).random(12)  # no outliers: the scale is straight
    asked = suggestion(targets=targets[:, None])
    points = np.random.default_rng(1).random((5, 2))
    surrogate = asked.judge("numeric", None, points).surrogates
    with torch.no_grad():
        views = Views(torch.from_numpy(PLANE.features(points)))
        posterior = surrogate.model.posterior(surrogate.features(views))
    mean = targets.mean() + targets.std() * posterior.mean[:, 0].numpy()
    deviation = targets.std() * posterior.variance[:, 0].sqrt().numpy()
    low, high = norm(mean, deviation).interval(0.95)
    found = asked.predict(PLANE.from_unit(points), "numeric", None)
    expected = np.column_stack([low, mean, high])
    np.testing.assert_allclose([(p.low, p.mean, p.high) for p in found], expected, rtol=1e-4)


def test_a_prediction_upside_down() -> None:
    assert -Prediction(1.0, -2.0, 5.0) == Prediction(-1.0, -5.0, 2.0)


def test_the_numbers_have_no_say_in_what_the_text_kernel_reads(
    readings: tuple[list[Sequence[Configuration]], Callable[..., Reader]],
) -> None:
    noted, reader = readings
    suggestion().choose("text", reader(PLANE))
    read = PLANE.to_unit(max(noted, key=len))
    assert len(read) == 12
    spread = read.std(axis=0)
    np.testing.assert_allclose(spread, np.sqrt(1 / 12), rtol=0.5)  # from all over


@pytest.mark.parametrize("space", [PLANE, SearchSpace(MIXED)], ids=["plane", "mixed"])
def test_nothing_is_read_twice(
    readings: tuple[list[Sequence[Configuration]], Callable[..., Reader]], space: SearchSpace
) -> None:
    noted, reader = readings
    asked = suggestion(space)
    asked.choose("sum", reader(space))
    for configurations in noted:
        keys = [space.key(configuration) for configuration in configurations]
        assert len(set(keys)) == len(keys) <= 12


def test_what_is_read_differs(
    readings: tuple[list[Sequence[Configuration]], Callable[..., Reader]],
) -> None:
    noted, reader = readings
    suggestion(n_candidates=24).choose("sum", reader(PLANE))
    points = PLANE.to_unit(next(read for read in noted if len(read) == 24))
    best = np.median(points, axis=0)
    assert np.mean(np.abs(points - best).max(axis=1) > 0.01) > 0.5
