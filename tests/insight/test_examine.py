"""All parts together, and the reasons for those that are missing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState
import pytest

from optuna_llmbo import LLMBOSampler
from optuna_llmbo.errors import InputError
from optuna_llmbo.errors import SurrogateFitError
from optuna_llmbo.insight import examine
from optuna_llmbo.insight import Insight
from optuna_llmbo.lora.proxy_agreement import Agreement
from optuna_llmbo.lora.proxy_agreement import ProxyCheck
from optuna_llmbo.lora.proxy_agreement import read_check
from optuna_llmbo.lora.proxy_agreement import save_check
from optuna_llmbo.suggestion import fitted
from tests.insight.studies import add
from tests.insight.studies import bowl
from tests.insight.studies import PLANE
from tests.insight.studies import study_of


MODEL = ("map", "slices", "choices", "importance", "next")


def missing(insight: Insight) -> list[str]:
    return [
        name for name in ("best_so_far", "calibration", *MODEL) if getattr(insight, name) is None
    ]


def check() -> ProxyCheck:
    agreement = Agreement(0.1, 10, math.nan, 0.9, 0.5, 0.8, (0.0, math.inf), 3.0, 0.9)
    losses = np.array([[1.0, 2.0, math.inf], [1.5, 2.5, 9.0]])
    return ProxyCheck(({"rank": 8}, {"rank": 4}, {"rank": 2}), losses, 2, (agreement,), 5.0)


def test_a_study_of_another_sampler() -> None:
    study = study_of(PLANE, bowl, 8)
    before = [trial.user_attrs for trial in study.trials]
    insight = examine(study)
    assert missing(insight) == ["calibration"]
    assert len(insight.reasons) == 1 and "provenance=True" in insight.reasons[0]
    assert [trial.user_attrs for trial in study.trials] == before and len(study.trials) == 8


def test_a_study_of_ours_has_everything() -> None:
    study = optuna.create_study(sampler=LLMBOSampler(seed=0, n_startup_trials=4))
    study.optimize(lambda t: bowl({n: t.suggest_float(n, 0, 1) for n in "xy"}), n_trials=6)
    insight = examine(study)
    assert missing(insight) == [] and insight.reasons == ()
    assert insight.calibration is not None
    assert [p.trial.number for p in insight.calibration.trials] == [4, 5]
    assert [t.chosen_by for t in insight.trials[4:]] == ["model", "model"]


def test_too_few_trials() -> None:
    study = study_of(PLANE, bowl, 2)
    add(study, {"x": 0.1, "y": 0.1}, PLANE, None, TrialState.FAIL)
    insight = examine(study)
    assert missing(insight) == ["calibration", *MODEL]
    assert "needs 3 observed trials; there are 2" in insight.reasons[1]
    three = examine(study_of(PLANE, bowl, 3))
    assert missing(three) == ["calibration", "importance"]
    assert "importance" in three.reasons[1]


def test_several_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), 1.0), n_trials=5)
    insight = examine(study)
    assert insight.objective is None and "2 objectives" in insight.reasons[0]
    assert missing(insight) == ["best_so_far", "calibration", *MODEL]


def test_no_common_parameters() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: 1.0, n_trials=4)
    insight = examine(study)
    assert missing(insight) == ["calibration", *MODEL]
    assert any("common parameters" in reason for reason in insight.reasons)


def test_a_model_that_cannot_be_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SurrogateFitError("no luck")

    monkeypatch.setattr(fitted, "fit_surrogates", fail)
    insight = examine(study_of(PLANE, bowl, 6))
    assert missing(insight) == ["calibration", *MODEL]
    assert any("cannot be fitted: no model could be fitted" in r for r in insight.reasons)


def test_a_fit_that_fails_on_the_first_trials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fitted.fit_surrogates  # type: ignore[attr-defined]

    def fail(observed: object, targets: object, *rest: object) -> object:
        if len(targets) < 6:  # type: ignore[arg-type]
            raise SurrogateFitError("too few")
        return fit(observed, targets, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fitted, "fit_surrogates", fail)
    insight = examine(study_of(PLANE, bowl, 7))
    assert insight.importance is not None and insight.importance.n_trials == (6, 7)


@pytest.mark.parametrize("values", [(math.inf, -math.inf, 1.0, 2.0), (math.inf,) * 4])
def test_infinite_values(values: tuple[float, ...]) -> None:
    study = study_of(PLANE, bowl, 0)
    for i, value in enumerate(values):
        add(study, {"x": i / 4, "y": 0.5}, PLANE, value)
    insight = examine(study)
    assert (insight.best_so_far is None) == (1.0 not in values)
    assert insight.next is not None and math.isfinite(insight.next.chosen.expected.mean)


def test_trials_without_a_value_only() -> None:
    study = study_of(PLANE, bowl, 0)
    for i in range(5):
        add(study, {"x": i / 5, "y": 0.5}, PLANE, None, TrialState.FAIL)
    insight = examine(study)
    assert missing(insight) == ["best_so_far", "calibration", *MODEL]
    assert len(insight.trials) == 5


def test_pruned_trials_only() -> None:
    study = study_of(PLANE, bowl, 0)
    for i in range(5):
        reports = {1: float(i), 2: i / 2}
        place = {"x": i / 5, "y": 0.5}
        add(study, place, PLANE, None, TrialState.PRUNED, intermediate_values=reports)
    insight = examine(study)
    assert missing(insight) == ["best_so_far", "calibration", "slices"]
    assert "slices" in " ".join(insight.reasons)
    assert [trial.value for trial in insight.trials] == [i / 2 for i in range(5)]


def test_running_and_constrained_trials() -> None:
    study = study_of(PLANE, bowl, 6)
    add(study, {"x": 0.3, "y": 0.0}, PLANE, 0.0, system_attrs={"constraints": (1.0,)})
    study.ask(PLANE)
    insight = examine(study)
    assert insight.best_so_far is not None and insight.map is not None
    assert insight.best_so_far.best[-1].number != 6
    assert {t.number: t.outcome for t, _ in insight.map.tried}[7] == "running"
    assert insight.map.best == insight.best_so_far.best[-1].number
    # what the model would recommend, and holds the others at, breaks no constraint either
    assert insight.slices is not None and insight.slices.number != 6


def test_a_proxy_check_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = save_check(check(), tmp_path)
    assert "Infinity" not in path.read_text() and "NaN" not in path.read_text()
    for where in (path, tmp_path):
        found = examine(optuna.create_study(), proxy_check=where).proxy
        assert found is not None
        np.testing.assert_array_equal(found.losses, check().losses)
        assert found.params == check().params and found.base_loss == 5.0
        assert repr(found.agreements) == repr(check().agreements)


def test_no_proxy_check(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="proxy-check --out"):
        examine(optuna.create_study(), proxy_check=tmp_path)
    (tmp_path / "proxy-check.json").write_text('{"losses": 3}')
    with pytest.raises(InputError, match="expected a proxy check"):
        read_check(tmp_path)
