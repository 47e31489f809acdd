from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
import pytest
from scipy.stats import norm
import torch

from optuna_llmbo import LLMBOSampler
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
from optuna_llmbo.suggestion.decide import _climb
from optuna_llmbo.suggestion.decide import decide
from optuna_llmbo.suggestion.decide import predict
from optuna_llmbo.suggestion.decision import Decision
from optuna_llmbo.suggestion.decision import Prediction
from optuna_llmbo.suggestion.fitted import fit_model
from optuna_llmbo.suggestion.fitted import FittedModel
from optuna_llmbo.suggestion.known import Known
from optuna_llmbo.suggestion.known import ModelData
from optuna_llmbo.suggestion.known import ReadTexts
from optuna_llmbo.suggestion.options import SamplerOptions
from optuna_llmbo.surrogate import observations
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.covariance import KernelName
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


def observed(space: SearchSpace = PLANE, *, n: int = 12, seed: int = 0, **changes: Any) -> Known:
    """What is known after n observations of a bowl."""
    points = space.snap(np.random.default_rng(7).random((n, len(space.names))))
    history: dict[str, Any] = {
        "configurations": tuple(space.from_unit(points)),
        "targets": bowl(points),
        "gaps": np.zeros(n),
        "seconds": np.ones(n),
        "constraints": {},
        "infeasible": (),
        "pending": (),
        "seen": frozenset(space.keys(points)),
    }
    history.update({name: changes.pop(name) for name in [*changes] if name in history})
    others = {"sources": (), "knowledge": Knowledge(), "prior": Prior(space, {}), **changes}
    region = Region(read_branches((), space.distributions))
    return Known(region=region, history=History(**history), seed=seed, **others)


def options(**changes: Any) -> SamplerOptions:
    """The sampler's options, with a short list for the language model."""
    chosen = LLMBOSampler(**{"seed": 0, "n_candidates": 12, "kernel": "numeric", **changes})
    return chosen._engine.options


def text_options(kernel: KernelName, **changes: Any) -> SamplerOptions:
    """Options with a kernel that reads; the reader is passed beside them."""
    return replace(options(**changes), kernel=kernel)


def decided(known: Known, **changes: Any) -> Decision:
    """What the numeric kernel decides."""
    return decide(known, options(**changes), None)


def fitted(known: Known, reference: np.ndarray, **changes: Any) -> FittedModel:
    return fit_model(ModelData(known, options(**changes)), "numeric", None, reference)


@pytest.fixture(scope="module")
def encoder(tiny_llm: Path) -> Encoder:
    return Encoder(load_model(resolve_source(tiny_llm)), "Known: nothing.\n")


@pytest.fixture
def readings(encoder: Encoder) -> tuple[list[Sequence[Configuration]], Callable[..., ReadTexts]]:
    """What was read, and a reader for a space that notes it."""
    noted: list[Sequence[Configuration]] = []

    def reader(space: SearchSpace) -> ReadTexts:
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
        ablation = Ablation(refinements=rounds, prior_strength=0.0)
        model = fitted(observed(n=25), pool, ablation=ablation)
        score_of[rounds] = model.scores
        found[rounds] = _climb(pool, model.scores(pool), model, np.random.default_rng(1))
    best = pool[score_of[0](pool).argmax()]
    np.testing.assert_array_equal(found[0], best)
    assert score_of[5](found[5][None])[0] > score_of[5](best[None])[0]


@pytest.mark.parametrize("space", [PLANE, SearchSpace(MIXED)], ids=["plane", "mixed"])
@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_new_and_in_the_space(space: SearchSpace, seed: int) -> None:
    asked = observed(space, seed=seed)
    chosen = decided(asked).configuration
    assert set(chosen) == set(space.names) and space.contains(chosen)
    assert space.key(chosen) not in asked.history.seen


def test_the_seed_decides() -> None:
    chosen = [decided(observed(seed=seed)).configuration for seed in (3, 3, 4)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_running_trials_are_kept_away_from() -> None:
    free = decided(observed()).configuration
    key = PLANE.key(free)
    busy = observed(pending=(free,), seen=observed().history.seen | {key})
    chosen = decided(busy).configuration
    apart = np.abs(PLANE.to_unit([chosen]) - PLANE.to_unit([free])).max()
    assert apart > 0.02


@pytest.mark.long
def test_all_there_is_to_know_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """More observations than are fitted to, with constraints, failures, durations, sources."""
    monkeypatch.setattr(observations, "MAX_OBSERVED", 10)
    rng = np.random.default_rng(0)
    n = 30
    x = np.array([c["x"] for c in observed(n=n).history.configurations])
    gaps = np.where(rng.random(n) < 0.5, 0.5, 0.0)
    other = rng.random((8, 2)), rng.normal(size=(8, 1))
    source = SourceObservations(*other, feasible=np.ones(8, bool))
    asked = observed(
        n=n,
        gaps=gaps,
        seconds=np.where(gaps > 0, np.nan, 1 + x),
        constraints={"memory": x - 0.3, "odd": np.full(n, np.nan)},
        infeasible=({"x": 0.9, "y": 0.9}, {"x": 0.95, "y": 0.8}),
        pending=({"x": 0.2, "y": 0.4},),
        sources=(source,),
        prior=Prior(PLANE, {"y": (0.3, 0.5)}),
    )
    chosen = decided(asked, cost_aware=True)
    assert chosen.configuration["x"] < 0.4 and chosen == decided(asked, cost_aware=True)


def test_predictions_do_not_depend_on_the_company() -> None:
    asked = observed(n=20)
    configurations = PLANE.from_unit(np.random.default_rng(1).random((6, 2)))
    together = predict(asked, options(), None, configurations)
    for i, configuration in enumerate(configurations):
        (alone,) = predict(asked, options(), None, [configuration])
        for end in ("low", "mean", "high"):
            assert getattr(alone, end) == pytest.approx(getattr(together[i], end), abs=1e-9)


def test_the_interval_is_the_central_95_percent() -> None:
    targets = 30 + 4 * np.random.default_rng(2).random(12)  # no outliers: the scale is straight
    asked = observed(targets=targets[:, None])
    points = np.random.default_rng(1).random((5, 2))
    surrogate = fitted(asked, points).surrogates
    (part,) = surrogate.parts
    with torch.no_grad():
        views = Views(torch.from_numpy(PLANE.features(points)))
        posterior = part.model.posterior(surrogate.features(views))
    mean = targets.mean() + targets.std() * posterior.mean[:, 0].numpy()
    deviation = targets.std() * posterior.variance[:, 0].sqrt().numpy()
    low, high = norm(mean, deviation).interval(0.95)
    found = predict(asked, options(), None, PLANE.from_unit(points))
    expected = np.column_stack([low, mean, high])
    np.testing.assert_allclose([(p.low, p.mean, p.high) for p in found], expected, rtol=1e-4)


def test_a_prediction_upside_down() -> None:
    assert -Prediction(1.0, -2.0, 5.0) == Prediction(-1.0, -5.0, 2.0)


def test_the_numbers_have_no_say_in_what_the_text_kernel_reads(
    readings: tuple[list[Sequence[Configuration]], Callable[..., ReadTexts]],
) -> None:
    noted, reader = readings
    decide(observed(), text_options("text"), reader(PLANE))
    read = PLANE.to_unit(max(noted, key=len))
    assert len(read) == 12
    spread = read.std(axis=0)
    np.testing.assert_allclose(spread, np.sqrt(1 / 12), rtol=0.5)  # from all over


@pytest.mark.parametrize("space", [PLANE, SearchSpace(MIXED)], ids=["plane", "mixed"])
def test_nothing_is_read_twice(
    readings: tuple[list[Sequence[Configuration]], Callable[..., ReadTexts]], space: SearchSpace
) -> None:
    noted, reader = readings
    asked = observed(space)
    decide(asked, text_options("sum"), reader(space))
    for configurations in noted:
        keys = [space.key(configuration) for configuration in configurations]
        assert len(set(keys)) == len(keys) <= 12


def test_what_is_read_differs(
    readings: tuple[list[Sequence[Configuration]], Callable[..., ReadTexts]],
) -> None:
    noted, reader = readings
    decide(observed(), text_options("sum", n_candidates=24), reader(PLANE))
    points = PLANE.to_unit(next(read for read in noted if len(read) == 24))
    best = np.median(points, axis=0)
    assert np.mean(np.abs(points - best).max(axis=1) > 0.01) > 0.5
