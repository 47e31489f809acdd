from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
from scipy.stats import spearmanr
import torch

from optuna_llmbo.errors import InputError
from optuna_llmbo.space.search_space import SearchSpace
from optuna_llmbo.study.history import read_history
from optuna_llmbo.study.transfer import best_configurations
from optuna_llmbo.study.transfer import best_value
from optuna_llmbo.study.transfer import read_source
from optuna_llmbo.study.transfer import read_studies
from optuna_llmbo.study.transfer import SourceObservations
from optuna_llmbo.study.transfer import SourceStudy
from optuna_llmbo.surrogate.ablation import Ablation
from optuna_llmbo.surrogate.choices import Inputs
from optuna_llmbo.surrogate.covariance import Transfer
from optuna_llmbo.surrogate.observations import gather
from optuna_llmbo.surrogate.process import fit_surrogate
from optuna_llmbo.surrogate.process import Views


X = FloatDistribution(0.0, 10.0)
C = CategoricalDistribution(("a", "b"))
SPACE = SearchSpace({"x": X, "c": C})


def trial(
    distributions: dict[str, BaseDistribution],
    state: TrialState = TrialState.COMPLETE,
    value: float | None = 1.0,
    **params: object,
) -> FrozenTrial:
    intermediate = {5: 1.0} if state == TrialState.PRUNED else {}
    return create_trial(
        params=params,
        distributions=distributions,
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        intermediate_values=intermediate,
    )


def study_of(trials: list[FrozenTrial], direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction)  # type: ignore[arg-type]
    study.add_trials(trials)
    return study


@pytest.mark.parametrize(("direction", "sign"), [("minimize", -1), ("maximize", 1)])
def test_larger_is_better_whatever_the_direction(direction: str, sign: int) -> None:
    both = {"x": X, "c": C}
    study = study_of([trial(both, value=v, x=v, c="b") for v in (3.0, 1.0)], direction)
    source = read_source(SourceStudy.of(study), SPACE, 1)
    np.testing.assert_array_equal(source.targets, [[3.0 * sign], [1.0 * sign]])
    expected = SPACE.to_unit([{"x": 3.0, "c": "b"}, {"x": 1.0, "c": "b"}])
    np.testing.assert_allclose(source.points, expected)


def test_only_complete_trials_within_the_ranges_are_taken() -> None:
    both = {"x": X, "c": C}
    wide = {"x": FloatDistribution(-50.0, 50.0), "c": C}
    more = {"x": X, "c": C, "depth": FloatDistribution(0.0, 1.0)}
    trials = [
        trial(both, value=1.0, x=1.0, c="a"),
        trial(both, TrialState.PRUNED, x=2.0, c="a"),
        trial(both, TrialState.FAIL, x=3.0, c="a"),
        trial(both, TrialState.RUNNING, x=3.5, c="a"),
        trial({"x": X}, value=4.0, x=4.0),  # c is missing
        trial(more, value=6.0, x=6.0, c="b", depth=0.5),
    ]
    source = read_source(SourceStudy.of(study_of(trials)), SPACE, 1)
    np.testing.assert_array_equal(source.targets, [[-1.0], [-6.0]])
    trials = [trial(wide, value=x, x=x, c="a") for x in (-1.0, 0.0, 10.0, 10.5)]
    source = read_source(SourceStudy.of(study_of(trials)), SPACE, 1)
    np.testing.assert_array_equal(source.targets, [[0.0], [-10.0]])


@pytest.mark.parametrize("other", [CategoricalDistribution(("a", "z")), X], ids=str)
def test_values_of_another_kind_are_left_out(other: BaseDistribution) -> None:
    known = trial({"x": X, "c": C}, value=1.0, x=1.0, c="a")
    value = "z" if other is not X else 3.0
    foreign = trial({"x": X, "c": other}, value=2.0, x=1.0, c=value)
    for trials, n in (([known], 1), ([foreign], 0)):
        source = read_source(SourceStudy.of(study_of(trials)), SPACE, 1)
        assert source.points.shape == (n, 2) and source.targets.shape == (n, 1)


def test_a_study_of_pruned_trials_alone_teaches_nothing() -> None:
    trials = [trial({"x": X, "c": C}, TrialState.PRUNED, x=x, c="a") for x in (1.0, 2.0)]
    source = read_source(SourceStudy.of(study_of(trials)), SPACE, 1)
    assert source.points.shape == (0, 2)


def test_best_configurations_in_turns() -> None:
    all_feasible = np.ones(3, bool)
    first = SourceObservations(
        np.array([[0.1], [0.2], [0.3]]), np.array([[1.0], [3.0], [2.0]]), all_feasible
    )
    second = SourceObservations(np.array([[0.7]]), np.array([[9.0]]), np.ones(1, bool))
    got = best_configurations([first, second], 2)
    assert [float(point[0]) for point in got] == [0.2, 0.7, 0.3]
    assert best_configurations([], 2) == []


def test_what_breaks_a_constraint_is_not_tried_first() -> None:
    """Its value still teaches; the best that may be used comes first, in both ways of asking."""
    both = {"x": X, "c": C}
    broken, allowed = (trial(both, value=v, x=v, c="b") for v in (1.0, 3.0))
    broken.system_attrs["constraints"] = (2.0,)
    marked = trial(both, value=0.5, x=0.5, c="b")
    marked.user_attrs["infeasible"] = True
    study = SourceStudy.of(study_of([broken, marked, allowed]))
    source = read_source(study, SPACE, 1)
    assert len(source.targets) == 3
    assert [SPACE.from_unit(p[None])[0] for p in best_configurations([source], 2)] == [
        {"x": 3.0, "c": "b"}
    ]
    assert best_value([study], "x") == 3.0


def test_a_study_is_read_once() -> None:
    study = study_of([trial({"x": X, "c": C}, x=1.0, c="a")])
    source = SourceStudy.of(study)
    study.add_trial(trial({"x": X, "c": C}, x=2.0, c="a"))
    assert len(source.trials) == 1
    assert source.name == study.study_name and source.directions == (StudyDirection.MINIMIZE,)


def test_a_study_from_a_storage(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/source.db"
    study = optuna.create_study(storage=storage, direction="maximize")
    study.add_trials([trial({"x": X, "c": C}, value=v, x=v, c="a") for v in (3.0, 4.0)])
    loaded = optuna.load_study(study_name=study.study_name, storage=storage)
    np.testing.assert_array_equal(
        read_source(SourceStudy.of(loaded), SPACE, 1).targets, [[3.0], [4.0]]
    )


def test_what_is_no_study_is_refused() -> None:
    with pytest.raises(InputError, match="sequence of optuna studies; got str"):
        SourceStudy.of("my-study")  # type: ignore[arg-type]
    several = optuna.create_study(directions=["minimize"] * 2, study_name="pareto")
    with pytest.raises(InputError, match="'pareto' has 2 objectives, this study 1: expected the"):
        read_source(SourceStudy.of(several), SPACE, 1)


def test_studies_are_given_in_a_sequence_and_once() -> None:
    one = study_of([trial({"x": X, "c": C}, x=1.0, c="a")])
    other = study_of([trial({"x": X, "c": C}, x=1.0, c="a")])
    assert [source.name for source in read_studies([one, other])] == [
        one.study_name,
        other.study_name,
    ]
    for wrong, message in (
        (one, "a sequence of optuna studies; got Study. Put a single one in a list"),
        (None, "a sequence of optuna studies; got NoneType"),
        ([one, other, one], f"has the study '{one.study_name}' twice"),
    ):
        with pytest.raises(InputError, match=message):
            read_studies(wrong)  # type: ignore[arg-type]


# What another study is worth: predictions of this one after a few own observations.

CUBE = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in "xyz"})
N_SOURCE = 40
SEEDS = range(5)
Objective = Callable[[np.ndarray, int], np.ndarray]


def ours(x: np.ndarray, seed: int = 0) -> np.ndarray:
    bowl = -((x - [0.3, 0.6, 0.5]) ** 2).sum(axis=1)
    values: np.ndarray = bowl + 0.3 * np.sin(6 * x[:, 0] * x[:, 1])
    return values


def related(x: np.ndarray, seed: int) -> np.ndarray:
    """In other units, with the optimum a bit aside."""
    return 40 + 7 * ours(np.clip(x + 0.03, 0, 1))


def reversed_(x: np.ndarray, seed: int) -> np.ndarray:
    return -ours(x)


def unrelated(x: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed + 50)
    bowl = -(2 * rng.random(3) * (x - rng.random(3)) ** 2).sum(axis=1)
    values: np.ndarray = bowl + 0.3 * np.cos(5 * x[:, 2] + x[:, 0])
    return values


def noise(x: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 50).normal(size=len(x))


def study_on(points: np.ndarray, values: np.ndarray) -> SourceStudy:
    """A maximized study's trials at some points."""
    trials = [
        trial(dict(CUBE.distributions), value=float(value), **configuration)
        for configuration, value in zip(CUBE.from_unit(points), values, strict=True)
    ]
    return SourceStudy.of(study_of(trials, "maximize"))


@cache
def learned(source: Objective | None, n: int, seed: int) -> tuple[float, float, float]:
    """Rank correlation and relative error of predictions elsewhere, and the source's r."""
    rng = np.random.default_rng(seed)
    own, elsewhere, other = rng.random((n, 3)), rng.random((60, 3)), rng.random((N_SOURCE, 3))
    trials = study_on(own, ours(own)).trials
    history = read_history(trials, [StudyDirection.MAXIMIZE], CUBE, current=-1)
    sources = [read_source(study_on(other, source(other, seed)), CUBE, 1)] if source else []
    data = gather(CUBE, history, sources, "winsorize", seed=0)
    views = Views(torch.from_numpy(data.points), source=torch.from_numpy(data.sources))
    surrogate = fit_surrogate(
        views, torch.from_numpy(data.targets[:, 0]), "numeric", Inputs(3), views, Ablation()
    )
    with torch.no_grad():
        features = surrogate.features(Views(torch.from_numpy(elsewhere)))
        mean = data.scales[0].inverse(surrogate.model.posterior(features).mean[:, 0].numpy())
    truth = ours(elsewhere)
    error = float(np.sqrt(np.mean((mean - truth) ** 2)) / truth.std())
    parts = surrogate.model.covar_module.modules()
    r = [float(part.r.detach()[0]) for part in parts if isinstance(part, Transfer)]
    return float(spearmanr(mean, truth).statistic), error, r[0] if r else 0.0


def over_seeds(source: Objective | None, n: int) -> np.ndarray:
    """Rank correlations, errors, r: (3, seeds)."""
    return np.array([learned(source, n, seed) for seed in SEEDS]).T


def test_a_related_study_helps_from_the_start() -> None:
    alone, helped = over_seeds(None, 5), over_seeds(related, 5)
    assert (helped[0] > alone[0]).all()
    assert np.median(helped[0]) > np.median(alone[0]) + 0.3
    assert np.median(helped[1]) < 0.7 * np.median(alone[1])


@pytest.mark.parametrize("source", [unrelated, reversed_, noise])
def test_a_study_that_misleads_washes_out(source: Objective) -> None:
    alone, misled = over_seeds(None, 15), over_seeds(source, 15)
    assert np.median(misled[1]) < 1.4 * np.median(alone[1])
    assert np.median(misled[0]) > np.median(alone[0]) - 0.1


@pytest.mark.parametrize("source", [unrelated, reversed_])
def test_how_related_a_study_is_is_learned(source: Objective) -> None:
    good, bad = over_seeds(related, 15)[2], over_seeds(source, 15)[2]
    assert np.median(good) > 0.8 and good.min() > 0.5
    assert (bad < good - 0.2).all()
